"""Echo asks for the first token."""

from hypothesis import strategies as st

from zoorecall.tasks.echo import EchoConfig

ONE = EchoConfig(vocab_size=20, distance=4)
SMALL, LARGE, FEW = [ONE], [EchoConfig()], [EchoConfig(vocab_size=6)]
PINS = [(ONE, "13442c69088b6832")]
IMPOSSIBLE: list = []
REFUSED = [{"distance": 1}]


def solve(config: EchoConfig, tokens: list[int]) -> int:
    return tokens[0]


def configs() -> st.SearchStrategy[EchoConfig]:
    return st.builds(EchoConfig, vocab_size=st.integers(6, 40), distance=st.integers(2, 9))
