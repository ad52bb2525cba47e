"""The matching strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ....models.errors import ModelNotFoundError
from .bidirectional import BidirectionalConfig, BidirectionalStrategy
from .graph import GraphConfig, GraphStrategy
from .matching import MatchingStrategy
from .prototype import PrototypeConfig, PrototypeStrategy


@dataclass(frozen=True, kw_only=True)
class StrategyConfigs:
    """A preset's settings of all strategies.

    Attributes:
        prototype: The strategy after PerSAM.
        bidirectional: The strategy after Matcher.
        graph: The strategy after GF-SAM.
    """

    prototype: PrototypeConfig = field(default_factory=PrototypeConfig)
    bidirectional: BidirectionalConfig = field(default_factory=BidirectionalConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)


STRATEGIES: Mapping[str, Callable[[StrategyConfigs], MatchingStrategy]] = {
    "prototype": lambda configs: PrototypeStrategy(configs.prototype),
    "bidirectional": lambda configs: BidirectionalStrategy(configs.bidirectional),
    "graph": lambda configs: GraphStrategy(configs.graph),
}


def create_strategy(name: str, configs: StrategyConfigs | None = None) -> MatchingStrategy:
    """Create a strategy by name.

    Args:
        name: A name of ``STRATEGIES``.
        configs: A preset's settings; by default those for the published models.

    Raises:
        ModelNotFoundError: No strategy has that name.
    """
    make = STRATEGIES.get(name) if isinstance(name, str) else None
    if make is None:
        raise ModelNotFoundError(
            f"no matching strategy is called {name!r}; there are {', '.join(STRATEGIES)}"
        )
    return make(configs or StrategyConfigs())
