"""mdbook's preprocessor: relative links that lead out of docs/ become links into the repository, where what they name is."""

import json
import re
import sys

REPOSITORY = "https://github.com/rlt-rs/rlt/blob/main/"


def mend(item):
    chapter = item.get("Chapter") if isinstance(item, dict) else None
    if chapter is None:
        return
    chapter["content"] = re.sub(r"\]\(\.\./", "](" + REPOSITORY, chapter["content"])
    for inner in chapter["sub_items"]:
        mend(inner)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    _, book = json.load(sys.stdin)
    # The name of the list changed with mdbook 0.5.
    for item in book.get("items", book.get("sections", [])):
        mend(item)
    json.dump(book, sys.stdout)


main()
