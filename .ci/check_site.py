"""Every link of a built site that stays on it leads to a file, and to a place in it: check_site.py FOLDER"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def main(folder):
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    dead, checked = [], 0
    for path, page in pages.items():
        # The page for wrong addresses is served from anywhere; the one to print repeats all others.
        if path.name in ("404.html", "print.html", "toc.html"):
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                dead.append(f"{path.relative_to(folder)}: {link} is no file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                dead.append(f"{path.relative_to(folder)}: {link} is no place on that page")
    print(f"{len(pages)} pages, {checked} links within the site, {len(dead)} dead")
    for line in dead:
        print(line, file=sys.stderr)
    # A checker that finds nothing to check is not looking.
    sys.exit(1 if dead or checked < 500 else 0)


main(Path(sys.argv[1]).resolve())
