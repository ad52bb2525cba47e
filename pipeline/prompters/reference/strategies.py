"""The matching strategies by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ....models.errors import ModelNotFoundError
from .bidirectional import BidirectionalConfig, BidirectionalStrategy
from .debias import DebiasedStrategy, PositionalBasis
from .graph import GraphConfig, GraphStrategy
from .matching import MatchingStrategy
from .prototype import PrototypeConfig, PrototypeStrategy


@dataclass(frozen=True, kw_only=True)
class StrategyConfigs:
    """A preset's settings of all strategies.

    Attributes:
        prototype: Of PerSAM's way.
        bidirectional: Of Matcher's way.
        graph: Of GF-SAM's way.
    """

    prototype: PrototypeConfig = field(default_factory=PrototypeConfig)
    bidirectional: BidirectionalConfig = field(default_factory=BidirectionalConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)


STRATEGIES: Mapping[str, Callable[[StrategyConfigs], MatchingStrategy]] = {
    "prototype": lambda configs: PrototypeStrategy(configs.prototype),
    "bidirectional": lambda configs: BidirectionalStrategy(configs.bidirectional),
    "graph": lambda configs: GraphStrategy(configs.graph),
}


def create_strategy(
    name: str, configs: StrategyConfigs | None = None, *, debias: PositionalBasis | None = None
) -> MatchingStrategy:
    """Make a strategy.

    Args:
        name: A name of ``STRATEGIES``.
        configs: A preset's settings; by default those made for the published models.
        debias: What of the features tells the place and is taken away; None for nothing.

    Raises:
        ModelNotFoundError: No strategy has that name.
    """
    make = STRATEGIES.get(name)
    if make is None:
        raise ModelNotFoundError(
            f"no matching strategy is called {name!r}; there are {', '.join(STRATEGIES)}"
        )
    strategy = make(configs or StrategyConfigs())
    return strategy if debias is None else DebiasedStrategy(strategy, debias)
