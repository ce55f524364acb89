"""A second, independent client: the JavaScript one, both ways (needs node and a package index)."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hub_server import LoopbackHub
from toys import hub as toys

import zoo

VERSION = "2.17.5"

SCRIPT = """
import { createRepo, uploadFiles, listFiles, modelInfo, downloadFile } from "@huggingface/hub";
import { readFileSync, readdirSync } from "node:fs";
import { createHash } from "node:crypto";

const [hubUrl, accessToken, repo, folder, theirs] = process.argv.slice(2);
const names = readdirSync(folder);
await createRepo({ repo, accessToken, hubUrl, private: false });
const files = names.map((name) => ({ path: name, content: new Blob([readFileSync(`${folder}/${name}`)]) }));
const done = await uploadFiles({ repo, accessToken, hubUrl, files, title: "from JavaScript", useXet: false });
const listed = [];
for await (const file of listFiles({ repo: theirs, accessToken, hubUrl })) listed.push(file.path);
const hashes = {};
for (const path of listed) {
  const blob = await downloadFile({ repo: theirs, path, accessToken, hubUrl, xet: false });
  hashes[path] = createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex");
}
const info = await modelInfo({ name: theirs, accessToken, hubUrl, additionalFields: ["sha"] });
console.log(JSON.stringify({ commit: done.commit.oid, hashes, sha: info.sha }));
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds the client."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    command = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", f"@huggingface/hub@{VERSION}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot install the JavaScript client: {done.stderr[-200:]}")
    (folder / "both-ways.mjs").write_text(SCRIPT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [True, False])
def test_both_ways(client: Path, hub: LoopbackHub, tmp_path: Path, redirect: bool) -> None:
    """It downloads what we pushed, byte by byte, and we load what it uploaded."""
    hub.redirect = redirect
    hub.state.tokens["hf_of_owner"] = "owner"  # this client insists on the form of a token
    zoo.register(toys.entry())
    folder = zoo.save(toys.trained(), tmp_path / "saved")
    about = zoo.push(toys.trained(5), "owner/ours", endpoint=hub.url, token="token-of-owner", private=False)
    words = ["node", "both-ways.mjs", hub.url, "hf_of_owner", "owner/theirs", str(folder), "owner/ours"]
    done = subprocess.run(words, cwd=client, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["sha"] == about.hub.revision
    tree = hub.state.repos["owner/ours"].commits[str(about.hub.revision)]
    assert said["hashes"] == {path: sha256(data).hexdigest() for path, data in tree.items()}
    module = zoo.load(f"hf://owner/theirs@{said['commit']}", endpoint=hub.url)
    assert torch.equal(module.body.weight, toys.trained().body.weight)
