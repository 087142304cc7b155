"""Which values of a program share their memory, and what it means when it writes into one of them.

Exported programs write in place (`relu_`, `add_`) as their authors' code does.  Where nothing else sees it, a new value
takes the old one's place instead: so neither the images nor the file's weights are ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabor.models.exported_graph.archive import ProgramError
from tabor.models.exported_graph.functions import Function
from tabor.models.exported_graph.operators import Operator


@dataclass
class _Shared:
    """Values that may lie in the same memory.

    Attributes:
        names: of these values.
        surely: whether they lie there however tensors are laid out.
        given: whether the images or a weight are among them.
    """

    names: set[str]
    surely: bool = True
    given: bool = False


class Memory:
    """Follows the calls of a program, one after the other.

    Args:
        given: the names of the images and of the weights.
        uses: the names that each call uses.
        answer: the name that is used at the end.
    """

    def __init__(self, given: Iterable[str], uses: Sequence[Sequence[str]], answer: str) -> None:
        self._last_use = {name: index for index, names in enumerate(uses) for name in names} | {answer: len(uses)}
        self._shared = {name: _Shared({name}, given=True) for name in given}
        self._now: dict[str, str] = {}

    def now(self, name: str) -> str:
        """Returns the name under which a value lies by now: another one once it was written into."""
        return self._now.get(name, name)

    def enter(self, operator: Operator, uses: Sequence[str], results: Sequence[str]) -> Function:
        """Takes note of a call that writes into nothing, and returns what to call."""
        joined = _Shared(set(results))
        if operator.view is not False:
            joined.surely = operator.view is True
            for old in [self._shared[name] for name in uses if name in self._shared]:
                joined.names |= old.names
                joined.surely &= old.surely
                joined.given |= old.given
        self._shared |= dict.fromkeys(joined.names, joined)
        return operator.call

    def write(self, index: int, operator: Operator, target: str, results: Sequence[str]) -> Function:
        """Takes note of the call of that index, which writes into a value, and returns what to call.

        Raises:
            ProgramError: others see what is written, and it cannot be told whether all of them do.
        """
        shared = self._shared[target]
        seen = [name for name in shared.names - {target} if self._last_use.get(name, -1) > index]
        if not seen:
            shared.names.discard(target)
            self._now[target] = results[0]
            fresh = _Shared({target, *results})
            self._shared |= dict.fromkeys(fresh.names, fresh)
            return operator.call
        if shared.given or not shared.surely or operator.in_place is None:
            raise ProgramError("writes into a value that it uses elsewhere; export it with run_decompositions()")
        shared.names.update(results)
        self._shared |= dict.fromkeys(results, shared)
        return operator.in_place
