"""What type checkers must refuse: every line marked ``error`` has one. Never run."""

from sage.graph import DataStream
from tests.typing.streams import Length, Numbers, length


def mistakes(lines: DataStream[str], numbers: DataStream[int]) -> None:
    lines.map(length, concurency=2)  # error: a misspelt option
    lines.map(length, ordering="kye")  # error: not one of the choices
    lines.map(length, retry={"attemps": 2})  # error: a misspelt key inside
    numbers.map(length)  # error: takes a str
    numbers.map(Length)  # error: takes a str
    lines.sink(Numbers)  # error: a sink of int
    lines.map(length).map(length)  # error: the first gives an int
    lines.union(numbers)  # error: of another type
