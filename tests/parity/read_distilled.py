"""Whether `datasets` reads what `rlt explain` wrote, row for row.

    rlt explain --model TEACHER --data ROWS --format conversations --out d/a.jsonl   (and the same with .parquet)
    python tests/parity/read_distilled.py d/a.jsonl d/a.parquet

Needs `datasets`, and `llamafactory` (pip install --no-deps llamafactory==0.9.5) for the last check, which is left
out when that cannot be found: its ShareGPT converter must find the same question, answer and system prompt.
"""

import json
import sys
import tempfile
import types
from pathlib import Path

from datasets import load_dataset

jsonl, parquet = sys.argv[1:]
rows = [json.loads(line) for line in open(jsonl, encoding="utf-8")]
with tempfile.TemporaryDirectory() as cache:
    for kind, path in (("json", jsonl), ("parquet", parquet)):
        read = load_dataset(kind, data_files=path, split="train", cache_dir=cache)
        assert read.num_rows == len(rows), (path, read.num_rows, len(rows))
        for i, (theirs, ours) in enumerate(zip(read, rows)):
            theirs = {name: value for name, value in theirs.items() if value is not None}
            assert theirs == {k: v for k, v in ours.items() if v is not None}, (path, i)
        print(f"{path}: {read.num_rows} rows equal")

try:
    # The converter alone: what these packages import of the trainer is not needed.
    for name in ("llamafactory", "llamafactory.data", "llamafactory.hparams", "llamafactory.extras"):
        package = types.ModuleType(name)
        package.__path__ = [str(Path(folder, *name.split("."))) for folder in sys.path if Path(folder, *name.split(".")).is_dir()]
        sys.modules[name] = package
    from llamafactory.data.converter import SharegptDatasetConverter
    from llamafactory.data.parser import DatasetAttr
    from llamafactory.hparams.data_args import DataArguments
except ImportError as error:
    print(f"LLaMA-Factory not checked: {error}")
    sys.exit()

attributes = DatasetAttr("file", dataset_name=jsonl)
attributes.formatting = "sharegpt"
if "conversations" in rows[0]:
    attributes.messages, attributes.system = "conversations", "system"
    attributes.role_tag, attributes.content_tag = "from", "value"
    question, answer = (lambda r, i=i: r["conversations"][i]["value"] for i in (0, 1))
    system = lambda r: r["system"]
else:
    attributes.messages, attributes.system_tag = "messages", "system"
    attributes.role_tag, attributes.content_tag = "role", "content"
    question, answer = (lambda r, i=i: r["messages"][i]["content"] for i in (-2, -1))
    system = lambda r: r["messages"][0]["content"] if r["messages"][0]["role"] == "system" else ""
attributes.user_tag, attributes.assistant_tag = "user", "assistant"
converter = SharegptDatasetConverter(attributes, DataArguments())
for row in rows:
    out = converter(row)
    assert out["_prompt"][-1]["content"] == question(row) and out["_response"][0]["content"] == answer(row), out
    assert out["_system"] == system(row), out
print(f"LLaMA-Factory: {len(rows)} rows equal")
