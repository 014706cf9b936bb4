"""Run by the Python that has the Prometheus operator's types: `python round_trip.py FILE`, YAML documents in it.

A type takes unknown fields and forgets them, so each document is loaded, written again and compared: what is missing
then was no field. Prints one line a problem.
"""

import sys
from typing import Any

import yaml
from cloudcoil.models.prometheus_operator import v1

TYPES = {"ServiceMonitor": v1.ServiceMonitor, "PrometheusRule": v1.PrometheusRule}


def missing(before: Any, after: Any, path: str) -> list[str]:
    """Where `after` lacks what `before` has."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{path}.{key} is no field" for key in before if key not in after]
        return gone + [
            line for key in before if key in after for line in missing(before[key], after[key], f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list):
        pairs = enumerate(zip(before, after, strict=False))
        return [line for n, (one, other) in pairs for line in missing(one, other, f"{path}[{n}]")]
    return []


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        documents = [document for document in yaml.safe_load_all(stream) if document and document["kind"] in TYPES]
    problems = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        try:
            read = TYPES[document["kind"]].model_validate(document)
        except ValueError as error:
            problems += [f"{name}: {' '.join(line.split())}" for line in str(error).splitlines()[:6]]
            continue
        written = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        problems += [f"{name}: {line}" for line in missing(document, written, "")]
    sys.stdout.write("\n".join([f"checked {len(documents)}", *problems]) + "\n")


main()
