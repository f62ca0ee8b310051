# mypy: disallow-untyped-defs=False
"""Adding rows of single precision to sums of double precision, inside kernels.

Both lie at addresses (int64), since rows of a mapped file need not be aligned, and one kernel adds rows of many models. Rows are added one
after the other, each column by itself: a sum is the same however many columns fit into a register, and wherever the list of rows is cut.
"""

from llvmlite import ir  # a part of numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from corpusmill.pipeline.kernel import kernel

BLOCK = 16  # columns that are added at once
FLOAT, DOUBLE = 4, 8  # bytes


def _adder(width):
    """An intrinsic of `(total, rows, count, skip)`: adds `width` columns of the `count` rows whose addresses lie at `rows`."""

    @intrinsic
    def add(typing_context, total, rows, count, skip):
        def generate(context, builder, _, arguments):
            total, rows, count, skip = arguments
            kind = ir.VectorType(ir.DoubleType(), width)
            place = builder.inttoptr(total, kind.as_pointer())
            addresses = builder.inttoptr(rows, ir.IntType(64).as_pointer())
            sums = cgutils.alloca_once_value(builder, builder.load(place, align=1))
            with cgutils.for_range(builder, count) as loop:
                address = builder.add(builder.load(builder.gep(addresses, [loop.index])), skip)
                row = builder.load(builder.inttoptr(address, ir.VectorType(ir.FloatType(), width).as_pointer()), align=1)
                builder.store(builder.fadd(builder.load(sums), builder.fpext(row, kind)), sums)
            builder.store(builder.load(sums), place, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), generate

    return add


_add_blocks, _add_fours, _add_ones = _adder(BLOCK), _adder(4), _adder(1)


@intrinsic
def _round_block(typing_context, row, total):
    def generate(context, builder, _, arguments):
        sums = builder.load(builder.inttoptr(arguments[1], ir.VectorType(ir.DoubleType(), BLOCK).as_pointer()), align=1)
        rounded = builder.fptrunc(sums, ir.VectorType(ir.FloatType(), BLOCK))
        builder.store(rounded, builder.inttoptr(arguments[0], rounded.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@kernel(inline="always")
def add_rows(total, rows, count, columns):
    """Adds float32 rows to the float64 sum at `total`: the first `count` of the addresses in `rows`."""
    addresses, column = rows.ctypes.data, 0
    while column + BLOCK <= columns:
        _add_blocks(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += BLOCK
    while column + 4 <= columns:
        _add_fours(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += 4
    while column < columns:
        _add_ones(total + column * DOUBLE, addresses, count, column * FLOAT)
        column += 1


@kernel(inline="always")
def round_row(row, total, columns):
    """Writes the float64 sum at `total` as a float32 row at `row`. Whole blocks are written."""
    for column in range(0, columns, BLOCK):
        _round_block(row + column * FLOAT, total + column * DOUBLE)
