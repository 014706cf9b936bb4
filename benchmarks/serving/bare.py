"""The bare handler that the service is held against: FastAPI, uvicorn and numpy, nothing else.

    python -m benchmarks.serving.bare --bundle FOLDER --histories FILE.json --port 8000 --workers 1 --arithmetic dense

It does the arithmetic of one recommendation and answers as many bytes as the service does. Its users' histories lie in
its memory; it validates nothing, counts nothing, and keeps no rules.

Three arithmetics, all in float32 on one thread:
dense: the whole score of every item as one would write it down in numpy, vectors laid out as is quickest, precomputed
    what can be; then the k best by argpartition.
same: the very function that the service ranks by (components/model/retrieval.py), so that nothing but the layers
    around it is left in the ratio. As the service where a request says "reasons": false.
reasons: the same, and why each item is listed (components/model/explain.py), as the service by default.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

from components.model.bundle import Bundle
from components.model.explain import explain_listed
from components.model.histories import Histories
from components.model.retrieval import Retrieval
from components.model.score import SIMILARITY
from components.model.terms import AFFINITY_PRIOR, FILTER_FLOOR

BUNDLE, HISTORIES, ARITHMETIC, BYTES = (f"BENCH_BARE_{name}" for name in ("BUNDLE", "HISTORIES", "ARITHMETIC", "BYTES"))


class Dense:
    """The whole score of every item, written down in numpy."""

    def __init__(self, bundle: Bundle) -> None:
        scorer = bundle.scorer
        counted, weights = scorer.counted, scorer.weights.terms
        self.scorer = scorer
        self.target_DI = np.ascontiguousarray(scorer.target_ID.numpy().T)
        self.similarity = np.float32(weights[SIMILARITY] / scorer.temperature)
        self.filter_weight = np.float32(weights["filter"])
        rows = counted.filter_rows
        self.indptr, self.indices, self.values = rows.indptr.numpy(), rows.indices.numpy(), rows.values.numpy()
        popularity = counted.popularity
        self.static_I = (
            weights["popularity"] * np.log1p(popularity.ever_I.numpy())
            + weights["recent_popularity"] * np.log1p(popularity.recent_I.numpy())
        ).astype(np.float32)
        self.affinities = [
            (
                np.float32(weights[f"affinity_{name}"]),
                counted.attributes.codes(name).numpy().copy(),
                counted.priors[name].numpy(),
            )
            for name in counted.attributes.affinity_names
        ]

    def __call__(self, histories: Histories, statistics: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        history = histories.items.numpy()
        strengths = histories.strengths(half_life_days=self.scorer.counted.half_life_days).numpy()
        user_D = self.scorer.user_vectors(histories, statistics)[0].numpy()
        score_I = (user_D * self.similarity) @ self.target_DI
        score_I += self.static_I
        raw_I = np.zeros(len(score_I), np.float32)
        spans = [slice(self.indptr[item], self.indptr[item + 1]) for item in history]
        if spans:
            entries = np.concatenate([self.indices[span] for span in spans])
            pulls = np.concatenate([self.values[span] * s for span, s in zip(spans, strengths, strict=True)])
            raw_I = np.bincount(entries, weights=pulls, minlength=len(score_I)).astype(np.float32)
        rms = max(float(np.sqrt(raw_I @ raw_I / len(raw_I))), 1e-12)
        score_I += self.filter_weight * np.log(raw_I / np.float32(rms) + np.float32(FILTER_FLOOR))
        for weight, codes_I, prior_V in self.affinities:
            counts_V = np.bincount(codes_I[history], weights=strengths, minlength=len(prior_V)).astype(np.float32)
            share_V = (counts_V + AFFINITY_PRIOR * prior_V) / (counts_V.sum() + AFFINITY_PRIOR)
            lift_V = weight * np.log(share_V / prior_V)
            lift_V[0] = 0
            score_I += lift_V.take(codes_I)
        score_I[history] = -np.inf
        best = np.argpartition(score_I, len(score_I) - k)[len(score_I) - k :]
        best = best[np.argsort(-score_I[best], kind="stable")]
        return best, score_I[best]


def create_app() -> FastAPI:
    """Of one worker process; what to serve is in the environment."""
    torch.set_num_threads(1)
    bundle = Bundle.load(Path(os.environ[BUNDLE]))
    known: dict[str, Any] = json.loads(Path(os.environ[HISTORIES]).read_text())
    statistics = torch.full((1, len(bundle.statistics_names)), torch.nan)
    histories = {
        user: Histories.from_lists(
            [[bundle.items.index[item] for item in row["items"]]], [row["weights"]], [row["ages_days"]]
        )
        for user, row in known.items()
    }
    answer_bytes = int(os.environ[BYTES])
    item_ids = bundle.items.item_ids
    with_reasons = os.environ[ARITHMETIC] == "reasons"
    ranker = Dense(bundle) if os.environ[ARITHMETIC] == "dense" else Retrieval(bundle.scorer)

    def listed(histories: Histories, k: int) -> list[dict[str, Any]]:
        if isinstance(ranker, Dense):
            return rows(*ranker(histories, statistics, k))
        found = ranker.rank(histories, statistics, k=k, with_reasons=with_reasons)
        found_rows = rows(found.items, found.scores)
        if with_reasons:
            why = explain_listed(bundle, found)
            for row, sentence, shares in zip(found_rows, why.sentences, why.shares_kT.tolist(), strict=True):
                row |= {"reasons": [sentence], "shares": dict(zip(why.terms, shares, strict=True))}
        return found_rows

    def rows(items: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"item_id": item_ids[item], "score": score}
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
        ]

    app = FastAPI(openapi_url=None)

    @app.get("/readyz")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/recommend")
    async def recommend(request: Request) -> Response:
        asked = json.loads(await request.body())
        with torch.inference_mode():
            answer = {"items": listed(histories[asked["user_id"]], asked["k"])}
        return Response(json.dumps(answer).ljust(answer_bytes), media_type="application/json")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--histories", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--arithmetic", choices=("dense", "same", "reasons"), default="dense")
    parser.add_argument("--bytes", type=int, default=0, help="an answer is made as long as the service's by spaces")
    given = parser.parse_args()
    os.environ |= {
        BUNDLE: given.bundle,
        HISTORIES: given.histories,
        ARITHMETIC: given.arithmetic,
        BYTES: str(given.bytes),
    }
    uvicorn.run(
        "benchmarks.serving.bare:create_app",
        factory=True,
        host="127.0.0.1",
        port=given.port,
        workers=given.workers,
        access_log=False,
        log_level="warning",
        timeout_worker_healthcheck=120,  # a worker that loads its bundle on a busy machine is not dead
    )


if __name__ == "__main__":
    main()
