"""How handlers are run: quick ones in order, searches one at a time, some in the browser alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# Two lanes of the queue, with one request at a time in each, so that quick steps do not wait for
# searches that take seconds.
MODELS, CLICKS = "models", "clicks"
# The class that the right half has during a search; it shows the button that cancels it.
_CLASSES = "document.querySelector('#right').classList"
_START = f"(...inputs) => {{ {_CLASSES}.add('searching'); return inputs; }}"
_STOP = f"() => {{ {_CLASSES}.remove('searching'); }}"
# On a narrow screen the results are below the buttons.
_BRING_INTO_VIEW = """() => {
    if (window.innerWidth < 800)
        document.querySelector('#headline').scrollIntoView({behavior: 'smooth'});
}"""


def quickly(
    event: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    latest: bool = False,
) -> Any:
    """Run a handler without progress, in the lane for clicks and edits.

    Args:
        event: What it answers.
        handler: The handler.
        inputs: Its inputs.
        outputs: What it may change.
        latest: Whether, of several events during a run, only the last one matters, as of a slider;
            otherwise each waits for its turn.
    """
    return event(
        handler,
        list(inputs),
        list(outputs),
        show_progress="hidden",
        trigger_mode="always_last" if latest else "multiple",
        concurrency_id=CLICKS,
        concurrency_limit=1,
        api_visibility="private",
    )


def slowly(
    event: Any,
    handler: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    progress_on: Any,
) -> Any:
    """Run a handler with progress, in the lane for searches; it can be cancelled.

    Args:
        event: What it answers.
        handler: The handler.
        inputs: Its inputs.
        outputs: What it may change.
        progress_on: The component that shows the progress.
    """
    found = event(
        handler,
        list(inputs),
        list(outputs),
        show_progress_on=[progress_on],
        js=_START,
        concurrency_id=MODELS,
        concurrency_limit=1,
        api_visibility="private",
    )
    found.then(None, None, None, js=_STOP, api_visibility="private")
    found.success(None, None, None, js=_BRING_INTO_VIEW, api_visibility="private")
    return found


def cancelling(button: Any, searches: Sequence[Any], handler: Any, outputs: Sequence[Any]) -> None:
    """Have a button cancel searches."""
    button.click(
        handler,
        None,
        list(outputs),
        cancels=list(searches),
        queue=False,
        api_visibility="private",
    )
    button.click(None, None, None, js=_STOP, api_visibility="private", queue=False)


def in_browser(event: Any, component: Any, script: str) -> None:
    """Run JavaScript on a component's value, without asking the server."""
    event(None, [component], None, js=script, api_visibility="private", queue=False)
