"""What a page gives to type."""

import html
import re


def commands_of(at):
    """The commands of a page, in their order."""
    bodies = (element.proto.body for element in at.get("html"))
    return [html.unescape(text) for body in bodies for text in re.findall(r"<code>(.*?)</code>", body, re.DOTALL)]
