"""FastAPI with the batcher that many teams write: greedy, on asyncio, one batch in the thread pool at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

MAX_BATCH = 64

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
queue: asyncio.Queue[tuple[list[float], asyncio.Future[list[float]]]] = asyncio.Queue()


def run(rows: list[list[float]]) -> list[list[float]]:
    """One batch."""
    return session.run(None, {"x": np.array(rows, np.float32)})[0].tolist()


async def batches() -> None:
    """Run what is waiting, at once, as soon as the model is free."""
    while True:
        items = [await queue.get()]
        while len(items) < MAX_BATCH and not queue.empty():
            items.append(queue.get_nowait())
        answers = await asyncio.to_thread(run, [row for row, _ in items])
        for (_, future), answer in zip(items, answers, strict=True):
            if not future.done():
                future.set_result(answer)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The batching loop beside the server."""
    task = asyncio.create_task(batches())
    yield
    task.cancel()


class Row(BaseModel):
    """One row of the model's input."""

    x: list[float]


class Answer(BaseModel):
    """One row of the model's output."""

    y: list[float]


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    """Ready once it listens: the session is opened before."""
    return {"ready": True}


@app.post("/predict")
async def predict(row: Row) -> Answer:
    """One row in, one row out."""
    future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
    queue.put_nowait((row.x, future))
    return Answer(y=await future)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
