"""A page as a browser takes it apart."""

from html.parser import HTMLParser

VOID_ELEMENTS = {"meta", "img", "br", "wbr", "link", "input", "hr", "path", "rect", "circle"}


class Page(HTMLParser):
    """Elements, attributes and text; complains about elements that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID_ELEMENTS or tag in ("path", "rect", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def values(self, name):
        return [value for _, key, value in self.attributes if key == name]
