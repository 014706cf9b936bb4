"""Who answers a request while a challenger proves itself, and the challenger that answers unseen.

`Routes` is replaced whole, as the bundle is, so one request never sees two stages. The champion stands in wherever the
challenger raises, is refused, or has nothing to say: a broken challenger costs no caller an answer.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from components.core.rollout import Arm, Rollout, place_of
from serving import metrics
from serving.errors import RequestError, UnknownItemError

if TYPE_CHECKING:
    from serving.observations import Recorder
    from serving.recommend import Recommender

logger = logging.getLogger(__name__)

CHALLENGER = "challenger"
SHADOW_QUEUE = 4
SHADOW_NICENESS = 10

Answer = TypeVar("Answer", bound=Any)
Call = Callable[["Recommender", Sequence[str]], Answer]
"""Answers one request by a recommender, told what the answer must name as `degraded`. It counts nothing: it may run
twice, and in another thread after the request has ended."""


@dataclass(frozen=True)
class Routed:
    """Whom a request is answered by."""

    recommender: Recommender
    arm: Arm | None = None
    """None: counted in no arm."""
    cluster: int = 0
    step: str = ""
    shadow: Recommender | None = None
    """Answers the same request, unseen."""
    stand_in: Recommender | None = None
    """Answers where `recommender` cannot; None: what it raises is raised."""
    is_refused: bool = False
    """The arm's own bundle could not be loaded, and `recommender` is the one that stands in."""
    recorder: Recorder | None = None
    """Counts the request in its arm; None: nothing is counted."""

    @property
    def degraded(self) -> tuple[str, ...]:
        return (CHALLENGER,) if self.is_refused else ()


@dataclass(frozen=True)
class Routes:
    """What a worker answers with at one moment."""

    current: Recommender
    """The pointer's."""
    rollout: Rollout | None = None
    challenger: Recommender | None = None
    champion: Recommender | None = None
    is_refused: bool = False
    """The challenger was tried and could not be loaded; False while it loads."""
    recorder: Recorder | None = None

    def route(self, user_id: str | None) -> Routed:
        rollout = self.rollout
        if rollout is None:
            return Routed(self.current)
        if rollout.stage == "shadow":
            if self.challenger is None:
                return Routed(self.current)
            cluster = place_of(user_id, rollout).cluster if user_id else 0
            return Routed(
                self.current, "champion", cluster, rollout.step, shadow=self.challenger, recorder=self.recorder
            )
        stand_in = self.champion if rollout.stage == "watch" else None
        both_are_here = self.champion is not None and (self.challenger is not None or self.is_refused)
        if user_id is None or not both_are_here:
            return Routed(self.current, stand_in=stand_in)
        place = place_of(user_id, rollout)
        routed = Routed(self.current, place.arm, place.cluster, rollout.step, stand_in=stand_in, recorder=self.recorder)
        if place.arm == "control":
            assert self.champion is not None
            return replace(routed, recommender=self.champion, stand_in=None)
        if place.arm == "challenger":
            if self.challenger is None:
                return replace(routed, is_refused=True)
            return replace(routed, recommender=self.challenger, stand_in=self.champion)
        return routed


def answer_routed(routed: Routed, call: Call[Answer], *, shadow: Shadow) -> Answer:
    """Answer a request, count it in its arm, and let the challenger answer it unseen where it shall.

    Raises what `call` raises where nobody stands in, and RequestError where the fault is the request's.
    """
    started, started_cpu = time.perf_counter(), time.thread_time()
    outcome = "error" if routed.is_refused else "answered"
    if routed.stand_in is None:
        answer = call(routed.recommender, routed.degraded)
    else:
        answer, outcome = _answer_or_stand_in(routed, routed.stand_in, call)
    if routed.is_refused or outcome == "error":
        metrics.FALLBACKS.labels(CHALLENGER).inc()
    recorder = routed.recorder
    if recorder is None or routed.arm is None:
        return answer
    if outcome == "answered" and not answer.rows:
        outcome = "empty"
    # Unseen, the challenger works at a lower priority: what it takes is comparable in CPU-seconds alone.
    seconds = time.perf_counter() - started if routed.shadow is None else time.thread_time() - started_cpu
    recorder.answered(
        routed.step,
        routed.arm,
        cluster=routed.cluster,
        seconds=seconds,
        outcome=outcome,
        is_fallback=_is_fallback(answer),
    )
    if routed.shadow is not None and not shadow.offer(routed, call, shown=_ids(answer), recorder=recorder):
        recorder.shed(routed.step)
    return answer


def count_of_batch(routed: Routed, answer: Any) -> None:
    """Count one list of a batch in its arm. Nobody answers a batch unseen, so in shadow there is nothing to count."""
    if routed.recorder is None or routed.arm is None or routed.shadow is not None:
        return
    outcome = "answered" if answer.rows else "empty"
    if routed.is_refused or CHALLENGER in answer.degraded:
        outcome = "error"
    routed.recorder.answered(
        routed.step,
        routed.arm,
        cluster=routed.cluster,
        seconds=None,
        outcome=outcome,
        is_fallback=_is_fallback(answer),
    )


def _answer_or_stand_in(routed: Routed, stand_in: Recommender, call: Call[Answer]) -> tuple[Answer, str]:
    """(answer, outcome). The stand-in's own error is raised: the fault is then the request's, or everybody's."""
    own = None
    try:
        own = call(routed.recommender, ())
        if own.items:
            return own, "answered"
        outcome = "empty"
    except Exception as error:  # noqa: BLE001  # whatever a challenger does, its caller gets an answer
        outcome = "error"
        if not isinstance(error, (RequestError, UnknownItemError)):
            logger.warning("The challenger raised %s, and the champion stands in.", type(error).__name__)
    answer = call(stand_in, (CHALLENGER,))
    # Where the champion has nothing either (a filter that leaves no item), nothing was missed.
    return (own, "answered") if own is not None and not answer.rows else (answer, outcome)


class Shadow:
    """The thread in which the challenger answers unseen, at low priority. It keeps few requests waiting and drops the
    rest, so that a slow challenger slows nobody down."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Routed, Call[Any], Sequence[str], Recorder]] = queue.Queue(SHADOW_QUEUE)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def offer(self, routed: Routed, call: Call[Any], *, shown: Sequence[str], recorder: Recorder) -> bool:
        """Let the challenger answer too, later; False where it is too busy."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((routed, call, shown, recorder))
        except queue.Full:
            return False
        return True

    def wait(self) -> None:
        """Until all that was offered is answered; for tests."""
        self._waiting.join()

    def _run(self) -> None:
        try:
            os.setpriority(
                os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + SHADOW_NICENESS
            )
        except OSError:  # a platform that forbids it: the queue's bound still holds
            logger.debug("The shadow runs at the service's own priority.")
        while True:
            routed, call, shown, recorder = self._waiting.get()
            try:
                self._answer(routed, call, shown, recorder)
            except Exception:
                logger.exception("An unseen answer was not counted.")
            finally:
                self._waiting.task_done()

    def _answer(self, routed: Routed, call: Call[Any], shown: Sequence[str], recorder: Recorder) -> None:
        assert routed.shadow is not None
        started = time.thread_time()
        is_fallback = False
        try:
            answer = call(routed.shadow, ())
        except (RequestError, UnknownItemError) as error:
            # The champion has answered it, so it is the challenger that lacks something: a category, say.
            logger.debug("The challenger refuses what the champion answers: %s", type(error).__name__)
            outcome = "error"
        except Exception as error:  # noqa: BLE001  # this is what the shadow is there to find
            logger.warning("The challenger, answering unseen, raised %s.", type(error).__name__)
            outcome = "error"
        else:
            outcome = "answered" if answer.rows or not shown else "empty"
            is_fallback = _is_fallback(answer)
            recorder.shadowed(routed.step, overlap(shown, _ids(answer)))
        recorder.answered(
            routed.step,
            CHALLENGER,
            cluster=routed.cluster,
            seconds=time.thread_time() - started,
            outcome=outcome,
            is_fallback=is_fallback,
        )


def overlap(shown: Sequence[str], other: Sequence[str]) -> float:
    """Share of the longer list that both have; 1 for two empty ones."""
    longest = max(len(shown), len(other))
    return len(set(shown) & set(other)) / longest if longest else 1.0


def _ids(answer: Any) -> list[str]:
    return [item_id for item_id, _ in answer.items]


def _is_fallback(answer: Any) -> bool:
    """Without the user's own history, or without something else."""
    return answer.source == "popularity" or any(name != CHALLENGER for name in answer.degraded)
