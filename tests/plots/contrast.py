"""The contrast of two colours, by WCAG 2.2's formula."""


def contrast(first: str, second: str) -> float:
    """Between 1 and 21; small type needs 4.5, a graphic 3."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def blend(over: str, under: str, opacity: float) -> str:
    """The colour of something see-through on a page."""
    mixed = (
        round(opacity * top + (1 - opacity) * base) for top, base in zip(_channels(over), _channels(under), strict=True)
    )
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def _luminance(colour: str) -> float:
    shares = [channel / 255 for channel in _channels(colour)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _channels(colour: str) -> list[int]:
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
