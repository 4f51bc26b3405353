"""Many comparisons at once: p-values corrected for how many were made, and what may then be concluded."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from spatial_lightning.evaluation.statistics import p_text

Method = Literal["holm", "benjamini-hochberg"]
_METHODS = {
    "holm": "by Holm for all {count}, so that the chance of any false claim is at most {risk:g} %",
    "benjamini-hochberg": "by Benjamini and Hochberg for all {count}, so that on average at most {risk:g} % of claims are "
    "false",
}
_VERDICTS = {
    "better": "better than before",
    "worse": "worse than before",
    "suggested": "a change is suggested but not shown",
    "open": "no difference can be concluded",
}


class Compared(typing.Protocol):
    """What a family is made of: :class:`Comparison` or :class:`SeedComparison`."""

    @property
    def difference(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def p_value(self) -> float: ...
    @property
    def level(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Family:
    """Comparisons that are looked at together, by name.

    Attributes:
        comparisons: by name, in the order given.
        corrected: corrected p-values by name, in [0, 1]; never below the comparison's own.
        method: ``holm`` bounds the chance of any false claim, ``benjamini-hochberg`` the expected share of false ones.
    """

    comparisons: Mapping[str, Compared]
    corrected: Mapping[str, float]
    method: Method

    @property
    def level(self) -> float:
        """Confidence of all intervals; a corrected p-value below ``1 - level`` is significant."""
        return next(iter(self.comparisons.values())).level

    def verdict(self, name: str) -> str:
        """``better`` or ``worse`` where interval and corrected test agree, ``suggested`` where one says so, else ``open``."""
        own = self.comparisons[name]
        excludes_zero, significant = own.low > 0 or own.high < 0, self.corrected[name] < 1 - own.level
        if excludes_zero and significant:
            return "better" if own.difference > 0 else "worse"
        return "suggested" if excludes_zero or significant else "open"

    @property
    def conclusions(self) -> dict[str, str]:
        """One sentence a comparison that says what may be concluded, and no more."""
        return {name: f"{name}: {self._figures(name)}: {_VERDICTS[self.verdict(name)]}." for name in self.comparisons}

    @property
    def conclusion(self) -> str:
        """One sentence about all comparisons."""
        names: dict[str, list[str]] = {}
        for name in self.comparisons:
            names.setdefault(self.verdict(name), []).append(f"{name} ({self._short(name)})")
        count = len(self.comparisons)
        made = "1 comparison" if count == 1 else f"{count} comparisons"
        how = _METHODS[self.method].format(count=count, risk=_percent(1 - self.level))
        found = "; ".join(
            f"{words}: {', '.join(names[verdict])}" for verdict, words in _VERDICTS.items() if verdict in names
        )
        return f"Of {made} to before, p-values corrected {how}: {found}."

    def _short(self, name: str) -> str:
        return f"{100 * self.comparisons[name].difference:+.1f} points, corrected p {p_text(self.corrected[name])}"

    def _figures(self, name: str) -> str:
        own = self.comparisons[name]
        return (
            f"after - before = {100 * own.difference:+.1f} points ({_percent(own.level):g} % interval of this comparison alone "
            f"{100 * own.low:+.1f} to {100 * own.high:+.1f}; p {p_text(own.p_value)}, corrected for {len(self.comparisons)} "
            f"p {p_text(self.corrected[name])})"
        )


def correct(comparisons: Mapping[str, Compared], method: Method = "holm") -> Family:
    """Correct the p-values of comparisons that are looked at together.

    Raises:
        ValueError: no comparisons, an unknown method, or intervals of different levels.
    """
    levels = {comparison.level for comparison in comparisons.values()}
    if len(levels) != 1:
        given = f"levels {sorted(levels)}" if levels else "no comparisons"
        raise ValueError(f"a family needs at least one comparison, and all with one level; got {given}")
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(_METHODS)}")
    p_values = [comparison.p_value for comparison in comparisons.values()]
    corrected = (holm if method == "holm" else benjamini_hochberg)(p_values)
    own = MappingProxyType(dict(comparisons))
    return Family(own, MappingProxyType(dict(zip(own, corrected, strict=True))), method)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given: below a level, the chance of any false claim is at most that level."""
    _require(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(order) - rank) * p_values[index])
        corrected[index] = min(1.0, highest)
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values of Benjamini and Hochberg, in the order given: below a level, so many claims are false on average.

    Holds for tests that are independent or positively dependent, as comparisons with one baseline are.
    """
    _require(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, lowest = [0.0] * len(p_values), 1.0
    for rank in range(len(order), 0, -1):
        lowest = min(lowest, len(order) / rank * p_values[order[rank - 1]])
        corrected[order[rank - 1]] = lowest
    return corrected


def _percent(share: float) -> float:
    return round(100 * share, 6)


def _require(p_values: Sequence[float]) -> None:
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"p-value is {wrong[0]}; allowed: 0 to 1")
