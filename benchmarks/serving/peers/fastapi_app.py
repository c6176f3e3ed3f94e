"""FastAPI as its tutorial has it: a typed body, a plain function in the thread pool, one ``session.run`` a request."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Row(BaseModel):
    """One row of the model's input."""

    x: list[float]


class Answer(BaseModel):
    """One row of the model's output."""

    y: list[float]


@app.get("/health")
def health() -> dict[str, bool]:
    """Ready once it listens: the session is opened before."""
    return {"ready": True}


@app.post("/predict")
def predict(row: Row) -> Answer:
    """One row in, one row out."""
    return Answer(y=session.run(None, {"x": np.array([row.x], np.float32)})[0][0].tolist())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
