"""Every Python example of the README, run in the order of the page."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_example(example, here):
    code = EXAMPLES[example]
    if "import GRPOConfig" in code:
        pytest.importorskip("trl", reason="TRL is not installed")
    exec(compile(code, f"example {example + 1} of README.md", "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) >= 6
