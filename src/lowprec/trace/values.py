"""The numbers of a traced program: a value of a format, its shadow, and whose error it carries.

`Scalar` stands for Python's and NumPy's floats, `Traced` for arrays. Neither computes anything: an
operator hands its operands to the engine, which knows the line that runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lowprec.trace.kits import Kit

Array = np.ndarray[Any, Any]
Parts = dict[int, Any]  # by unit: what part of the error it has


class Store:
    """The memory that an array and its views share: C-contiguous, the layout of the shadow's.

    shadow (float64 ndarray): All elements, for their layout.
    kit: The format that all values are of; None if they are mixed or have not entered one.
    born, grown (dict of int to float64 ndarray, or None): By unit: its part of value - shadow.
    origin (int32 ndarray or None): The unit where an element ceased to be finite, or became zero;
        -1 elsewhere.
    """

    __slots__ = ("born", "grown", "kit", "origin", "shadow")

    def __init__(
        self, shadow: Array, kit: Kit | None, born: Parts | None, grown: Parts | None
    ) -> None:
        self.shadow, self.kit, self.born, self.grown = shadow, kit, born, grown
        self.origin: Array | None = None


def same_view(base: Array, view: Array, other: Array) -> Array:
    """Return of `other`, which lies as `base` does, the elements that `view` is of `base`."""
    if view is base:
        return other
    start = base.__array_interface__["data"][0]
    offset = view.__array_interface__["data"][0] - start
    if view.size == 0:
        offset = 0
    scale = other.itemsize
    size = base.itemsize
    return np.ndarray(
        view.shape,
        other.dtype,
        other,
        offset // size * scale,
        [step // size * scale for step in view.strides],
    )


def _operator(ufunc: Any) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """Return the methods of an operator, and of its reflected one."""
    return (
        lambda self, other: self.run.binary(ufunc, self, other),
        lambda self, other: self.run.binary(ufunc, other, self),
    )


def _comparison(ufunc: Any) -> Callable[[Any, Any], Any]:
    return lambda self, other: self.run.compare(ufunc, self, other)


def _into(ufunc: Any) -> Callable[[Any, Any], Any]:
    return lambda self, other: self.run.in_place(ufunc, self, other)


class TracedNumber:
    """What scalars and arrays share: operators that ask the engine."""

    __slots__ = ()

    run: Any

    # A subclass of ndarray would leak through numpy.asarray; this is taken for one by isinstance.
    __add__, __radd__ = _operator(np.add)
    __sub__, __rsub__ = _operator(np.subtract)
    __mul__, __rmul__ = _operator(np.multiply)
    __truediv__, __rtruediv__ = _operator(np.divide)
    __floordiv__, __rfloordiv__ = _operator(np.floor_divide)
    __mod__, __rmod__ = _operator(np.remainder)
    __matmul__, __rmatmul__ = _operator(np.matmul)
    __lt__, __le__ = _comparison(np.less), _comparison(np.less_equal)
    __gt__, __ge__ = _comparison(np.greater), _comparison(np.greater_equal)
    __eq__, __ne__ = _comparison(np.equal), _comparison(np.not_equal)
    __hash__ = None  # type: ignore[assignment]

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        return self.run.power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.run.power(other, self)

    def __neg__(self) -> Any:
        return self.run.unary(np.negative, self)

    def __pos__(self) -> Any:
        return self.run.unary(np.positive, self)

    def __abs__(self) -> Any:
        return self.run.unary(np.absolute, self)

    def __bool__(self) -> bool:
        return bool(self.run.truth(self))

    def __float__(self) -> float:
        return float(self.run.leak(self, "float()"))

    def __int__(self) -> int:
        return int(self.run.integer(self, int))

    def __complex__(self) -> complex:
        raise TypeError(
            "a complex number would be made of a traced value; formats have real numbers: split "
            "real and imaginary parts"
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        values = np.array(self.run.leak(self, "an array"), np.float64)
        return values if dtype is None else values.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return self.run.ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return self.run.function(function, args, kwargs)

    def __round__(self, digits: int | None = None) -> Any:
        if digits is None:
            return self.run.integer(self, round)
        return self.run.function(np.round, (self, digits), {})

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            return self.run.method(self, name)
        if not name.startswith("_") and (hasattr(np.ndarray, name) or hasattr(float, name)):
            raise self.run.unknown_attribute(self, name)
        raise AttributeError(f"{type(self).__name__} of a traced program has no attribute {name!r}")

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return self.run.numpy

    @property
    def device(self) -> str:
        """Where NumPy's arrays are."""
        return "cpu"

    @property
    def dtype(self) -> np.dtype[Any]:
        """float64, which is what the program would see."""
        return np.dtype(np.float64)

    @property
    def itemsize(self) -> int:
        """Bytes of an element in float64."""
        return 8

    @property
    def real(self) -> Any:
        """The number itself."""
        return self

    @property
    def imag(self) -> Any:
        """Zeros."""
        return self.run.function(np.zeros_like, (self,), {})


# Methods that are functions of NumPy under the same name.
_METHODS = """
    sum mean std var prod cumsum cumprod max min argmax argmin argsort ptp any all nonzero clip
    round dot take repeat squeeze swapaxes diagonal trace compress choose searchsorted conj
    conjugate reshape transpose ravel argpartition
"""
METHODS = frozenset(_METHODS.split())


class Scalar(TracedNumber):
    """A float of the traced program.

    value, shadow: As traced, and in the shadow.
    kit: The format that the value is of; None if it has not entered one.
    born, grown: By unit: its part of value - shadow.
    """

    __slots__ = ("born", "grown", "kit", "origin", "run", "shadow", "value")

    def __init__(
        self,
        run: Any,
        value: float,
        shadow: float,
        kit: Kit | None,
        born: Parts | None = None,
        grown: Parts | None = None,
    ) -> None:
        self.run, self.value, self.shadow, self.kit = run, value, shadow, kit
        self.born, self.grown = born, grown
        self.origin = -1

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # isinstance(x, float) is what programs ask
        return np.float64

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self.value)

    def __trunc__(self) -> Any:
        return self.run.integer(self, int)

    def __floor__(self) -> Any:
        import math

        return self.run.integer(self, math.floor)

    def __ceil__(self) -> Any:
        import math

        return self.run.integer(self, math.ceil)

    def __copy__(self) -> Scalar:
        return self

    def __deepcopy__(self, memo: Any) -> Scalar:
        return self

    def __repr__(self) -> str:
        return repr(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    shape: tuple[int, ...] = ()
    ndim = 0
    size = 1

    @property
    def T(self) -> Scalar:
        """The number itself."""
        return self

    def item(self) -> Scalar:
        """Return the number itself."""
        return self

    tolist = copy = conjugate = item

    def astype(self, dtype: Any, **options: Any) -> Any:
        """Return the number, or the integer that it becomes."""
        return self.run.astype(self, dtype)

    def as_integer_ratio(self) -> tuple[int, int]:
        """Return the value as a fraction: it leaves."""
        return float(self).as_integer_ratio()

    def is_integer(self) -> bool:
        """Whether the value is an integer."""
        return bool(self.run.compare(np.equal, self, self.run.function(np.rint, (self,), {})))

    def __getitem__(self, index: Any) -> Any:
        if index == ():
            return self
        return self.run.array(self)[index]


class Traced(TracedNumber):
    """An array of the traced program.

    Attributes
    ----------
    value : ndarray
        As traced: float32 where that holds every format of the run, else float64.
    shadow : float64 ndarray
        The same elements in the shadow.
    store : Store
        What views share.
    """

    __slots__ = ("run", "shadow", "store", "value")

    def __init__(self, run: Any, value: Array, shadow: Array, store: Store) -> None:
        self.run, self.value, self.shadow, self.store = run, value, shadow, store

    @property
    def kit(self) -> Kit | None:
        """The format that all values are of, None if they are mixed or have not entered one."""
        return self.store.kit

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # isinstance(x, np.ndarray) is what programs ask
        return np.ndarray

    def parts(self, which: str) -> Parts:
        """Return the parts, "born" or "grown", of these elements by unit."""
        kept = getattr(self.store, which)
        if kept is None:
            return {}
        base, view = self.store.shadow, self.shadow
        if view is base:
            return kept  # type: ignore[no-any-return]
        return {unit: same_view(base, view, part) for unit, part in kept.items()}

    def origins(self) -> Array | None:
        """Return where elements were lost, None if none was."""
        if self.store.origin is None:
            return None
        return same_view(self.store.shadow, self.shadow, self.store.origin)

    def view_of(self, value: Array, shadow: Array) -> Traced:
        """Return a view: these elements of the same memory."""
        return Traced(self.run, value, shadow, self.store)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        shape: tuple[int, ...] = self.value.shape
        return shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        value, shadow = self.value.view(), self.shadow.view()
        value.shape = shape
        shadow.shape = shape
        self.value, self.shadow = value, shadow

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.value.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.value.size

    @property
    def nbytes(self) -> int:
        """Bytes in float64."""
        return 8 * self.value.size

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides in float64."""
        return self.shadow.strides

    @property
    def flags(self) -> Any:
        """NumPy's flags of the array."""
        return self.shadow.flags

    @property
    def base(self) -> Any:
        """None if the array has its own memory."""
        return None if self.shadow is self.store.shadow else self.store

    @property
    def T(self) -> Traced:
        """The transposed view."""
        return self.view_of(self.value.T, self.shadow.T)

    @property
    def flat(self) -> FlatElements:
        """The elements in C order: what is read is a copy, what is written goes to the array."""
        return FlatElements(self)

    @flat.setter
    def flat(self, value: Any) -> None:
        self.flat[:] = value

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        if self.value.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self.value)))

    def __getitem__(self, index: Any) -> Any:
        return self.run.get(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.run.set(self, index, value)

    def __contains__(self, value: Any) -> bool:
        return bool(self.run.compare(np.equal, self, value).any())

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays can be converted to a scalar index")

    def __copy__(self) -> Any:
        return self.run.function(np.copy, (self,), {})

    def __deepcopy__(self, memo: Any) -> Any:
        return self.run.function(np.copy, (self,), {})

    def copy(self, order: str = "C") -> Any:
        """Return a copy with memory of its own."""
        return self.run.function(np.copy, (self,), {})

    def flatten(self, order: str = "C") -> Any:
        """Return a copy in one dimension."""
        return self.run.function(np.ravel, (self.copy(),), {"order": order})

    def fill(self, value: Any) -> None:
        """Set all elements."""
        self[...] = value

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        """Sort in place."""
        self[...] = self.run.function(np.sort, (self,), {"axis": axis})

    def item(self, *index: Any) -> Any:
        """Return an element as a scalar."""
        if not index:
            if self.value.size != 1:
                raise ValueError("can only convert an array of size 1 to a Python scalar")
            return self.reshape(1)[0]
        return (
            self.run.function(np.ravel, (self,), {})[index[0]] if len(index) == 1 else (self[index])
        )

    def tolist(self) -> Any:
        """Return nested lists of scalars."""
        if self.value.ndim == 0:
            return self[()]
        return [part.tolist() if isinstance(part, np.ndarray) else part for part in self]

    def astype(self, dtype: Any, **options: Any) -> Any:
        """Return a copy, or the integers that the values become."""
        return self.run.astype(self, dtype)

    def view(self, *types: Any) -> Any:
        """Return a view of the same elements; another dtype is refused."""
        for kind in types:
            if not (isinstance(kind, type) and issubclass(kind, np.ndarray)):
                raise TypeError(
                    f"view({kind!r}) would read the bits of traced values as another type; "
                    "use lowprec.encode and decode outside of the traced function"
                )
        return self.view_of(self.value.view(), self.shadow.view())

    def setflags(self, *args: Any, **kwargs: Any) -> None:
        """Set flags of the memory, such as write=False."""
        self.value.setflags(*args, **kwargs)

    __iadd__, __isub__ = _into(np.add), _into(np.subtract)
    __imul__, __itruediv__ = _into(np.multiply), _into(np.divide)
    __ifloordiv__, __imod__ = _into(np.floor_divide), _into(np.remainder)

    def __ipow__(self, other: Any) -> Any:  # type: ignore[misc, override]
        self[...] = self.run.power(self, other)
        return self

    def __imatmul__(self, other: Any) -> Any:
        self[...] = self.run.binary(np.matmul, self, other)
        return self

    def __repr__(self) -> str:
        return repr(np.asarray(self.value, np.float64))

    def __str__(self) -> str:
        return str(np.asarray(self.value, np.float64))

    def __format__(self, spec: str) -> str:
        return str(self)

    def __reduce__(self) -> Any:
        raise TypeError("a traced array cannot be pickled; return it from the function instead")


class FlatElements:
    """The elements of an array in C order, as `numpy.ndarray.flat`."""

    def __init__(self, array: Traced) -> None:
        self.array = array

    def _places(self, index: Any) -> Any:
        return np.unravel_index(np.arange(self.array.size)[index], self.array.shape)

    def __getitem__(self, index: Any) -> Any:
        return self.array[self._places(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        places = self._places(index)
        if np.size(value) > 1:
            value = self.array.run.function(np.resize, (value, np.shape(places[0])), {})
        self.array[places] = value

    def __len__(self) -> int:
        return self.array.size

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self)))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        whole = [x[:] if type(x) is FlatElements else x for x in args]
        return self.array.run.function(function, tuple(whole), kwargs)


_PYTHON = (bool, int, float, np.bool_, np.integer, np.floating)


def is_number(x: Any) -> bool:
    """Whether this is a real number of Python's or NumPy's."""
    return isinstance(x, _PYTHON)


def parts_of(source: Any, which: str) -> Parts:
    """Return the parts, "born" or "grown", of a traced number by unit; of others none."""
    kind = type(source)
    if kind is Traced:
        return source.parts(which)  # type: ignore[no-any-return]
    if kind is Scalar:
        return getattr(source, which) or {}
    return {}


def has_traced(x: Any) -> bool:
    """Whether nested lists hold a traced number."""
    if isinstance(x, list | tuple):
        return any(has_traced(item) for item in x)
    return type(x) is Traced or type(x) is Scalar
