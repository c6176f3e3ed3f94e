"""Serve a bundle and ask it one question, with the standard library alone on the client's side.

Run it with ``python examples/serve_and_ask.py RUN_OR_BUNDLE``. The server is the one of ``headway serve``, in a process of its own on a
free port of this machine; the question is one row of zeros in the Open Inference Protocol v2 (JSON). The base install is enough.
"""

import json
import subprocess
import sys
import urllib.request

SAMPLE_TYPES = {"BOOL": False, "FP16": 0.0, "FP32": 0.0, "FP64": 0.0}


def ask(url: str, body: object = None) -> dict:
    """The JSON answer to a GET, or to a POST when there is a body."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data=data, timeout=30) as answer:
        return json.load(answer)


def zeros(tensor: dict) -> dict:
    """One row of zeros for an input as the model's metadata describe it; -1 is a free dimension."""
    shape = [1 if size == -1 else size for size in tensor["shape"]]
    count = 1
    for size in shape:
        count *= size
    return {
        "name": tensor["name"],
        "datatype": tensor["datatype"],
        "shape": shape,
        "data": [SAMPLE_TYPES.get(tensor["datatype"], 0)] * count,
    }


def main(bundle: str) -> None:
    """Start the server, read what it serves, ask once, and stop it."""
    command = [sys.executable, "-m", "headway", "serve", "--json", bundle, "--http", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if not line:
            raise SystemExit("the server did not start; its reason stands above")
        ready = json.loads(line)
        model = f"{ready['url']}/v2/models/{ready['model']}"
        print("serving", ready["variant"], "on", ready["plan"])
        answer = ask(f"{model}/infer", {"inputs": [zeros(tensor) for tensor in ask(model)["inputs"]]})
        for output in answer["outputs"]:
            print(output["name"], output["shape"], "first values:", [round(value, 4) for value in output["data"][:5]])
    finally:
        server.terminate()  # accepted requests are answered before it ends
        server.wait(30)
        server.stdout.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python serve_and_ask.py RUN_OR_BUNDLE")
    main(sys.argv[1])
