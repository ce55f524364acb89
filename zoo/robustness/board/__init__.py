"""The leader board of robustness: checkpoints on the same test pictures, judged by the worst that any attack did.

    rows = published()                                        # what the zoo publishes
    row = enter("mine", my_network, "rslad", 0.1, folder)     # a network of yours, on the pictures of these weights
    print(shown([*rows, row]))

A row is a JSON file: which pictures withstand which attack, bit by bit, the hashes of weights and pictures, radius,
seed, attacks, versions, hardware. Rows of one data set, norm and radius are a group and are compared; their pictures
are the same ones. Nothing is typed: `measuring` writes the files, `tables` derives the tables.
"""

from zoo.robustness.board.measuring import ATTACKS, BLOCK, Subject, candidates, enter, measure, subject_of
from zoo.robustness.board.row import BoardRow, Verdicts, place_of, published, rows_in
from zoo.robustness.board.tables import groups_of, page, shown

__all__ = [
    "ATTACKS",
    "BLOCK",
    "BoardRow",
    "Subject",
    "Verdicts",
    "candidates",
    "enter",
    "groups_of",
    "measure",
    "page",
    "place_of",
    "published",
    "rows_in",
    "shown",
    "subject_of",
]
