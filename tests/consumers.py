"""What cloud-init's own reader makes of a document: PyYAML, then its write_files.

Usage: python3 - DOCUMENT, in Debian's root file system. Prints JSON.
"""
import base64
import json
import re
import sys

import yaml
from cloudinit.config.cc_write_files import (
    canonicalize_extraction,
    decode_perms,
    extract_contents,
)

# A blob within a file: a key in a kubeconfig.
BLOB = re.compile(r"[A-Za-z0-9+/]{100,}={0,2}")


def encode(content):
    return content if isinstance(content, bytes) else content.encode()


def blobs(text):
    for blob in BLOB.findall(text):
        try:
            yield base64.b64decode(blob, validate=True).decode()
        except ValueError:
            pass


def file(entry):
    content = extract_contents(
        entry["content"], canonicalize_extraction(entry.get("encoding"))
    )
    text = encode(content).decode()
    return {
        "path": entry["path"],
        "permissions": entry["permissions"],
        "quoted": isinstance(entry["permissions"], str),
        "mode": decode_perms(entry["permissions"], None),
        "owner": entry.get("owner"),
        "text": text,
        "inner": list(blobs(text)),
    }


class Unique(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; nobody means that."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise ValueError(f"a key twice: {keys}")
        return super().construct_mapping(node, deep)


with open(sys.argv[1]) as stream:
    raw = stream.read()
document = yaml.safe_load(raw)
assert document == yaml.load(raw, Unique)
files = [file(entry) for entry in document["write_files"]]
json.dump({"document": document, "files": files}, sys.stdout)
