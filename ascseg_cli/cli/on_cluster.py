"""`ascseg predict --ray`: hires workers on a Ray cluster, and then everything goes on as on one machine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ascseg_cli.cli import say
from ascseg_cli.cli.prediction import Order, say_engine, segment
from ascseg_cli.cluster.connection import connected
from ascseg_cli.cluster.crew import hire, threads_of_a_worker
from ascseg_cli.cluster.worker import Job
from ascseg_cli.data.discover import Found, Item
from ascseg_cli.data.remote import Place


def segment_on_cluster(found: Found, order: Order) -> int:
    """Segment what was found; returns the exit code. Raises MissingExtraError, BackendError, UsageError."""
    with connected(order.ray or "auto") as ray:
        threads = threads_of_a_worker(ray, order.threads)
        job = Job(
            weights=order.weights.read_bytes(),
            weights_name=order.weights.name,
            settings=order.settings,
            place=_absolute(order.place),
            device=order.device,
            backend=order.backend,
            threads=threads,
            resume=order.mode == "resume",
        )
        crew = hire(ray, job, lambda text: say("warning", text))
        crew.gather()
        say_engine(crew.described, quiet=order.quiet)
        if not order.quiet:
            machines = sum(node["Alive"] for node in ray.nodes())
            team = f"{_count(crew.workers, 'worker')} of {_count(threads, 'thread')}"
            say("note", f"{team} in a Ray cluster of {_count(machines, 'machine')}")
        items = tuple(map(_anywhere, found.items))
        return segment(replace(found, items=items), crew, replace(order, threads=threads))


def _absolute(place: Place) -> Place:
    """Workers have working folders of their own."""
    return Path(os.path.abspath(place)) if isinstance(place, Path) else place


def _anywhere(item: Item) -> Item:
    return replace(item, where=os.path.abspath(item.where)) if isinstance(item.where, str) else item


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
