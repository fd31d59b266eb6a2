"""Tensors: the memory numpy and torch see, its life, and what is refused."""

import gc
import io
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import growth

import anex
from anex._native import Tensor

DTYPES = ("float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32", "bool")
TORCH_DTYPES = tuple(name for name in DTYPES if name not in ("uint16", "uint32"))
SHAPES = st.lists(st.integers(1, 7), max_size=5).map(tuple)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padded", [False, True])
def test_a_numpy_view_shares_memory_in_every_dtype(dtype, padded):
    t = anex.zeros((2, 3, 5), dtype, padded=padded)
    view = np.asarray(t)
    view[1, 2, 4] = 1
    assert np.asarray(t)[1, 2, 4] == 1
    assert view.shape == t.shape == (2, 3, 5)
    assert view.strides == t.strides
    assert view.dtype == t.dtype == np.dtype(dtype)
    assert (view.nbytes, view.size, view.ndim) == (t.nbytes, t.size, t.ndim)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_padded_tensor_start_at_multiples_of_64_bytes(dtype):
    t = anex.ones((3, 2, 33), dtype, padded=True)
    assert t.strides[1] % 64 == 0
    assert t.strides[0] == 2 * t.strides[1]
    assert np.asarray(t).ctypes.data % 64 == 0
    assert np.asarray(t).sum() == 3 * 2 * 33


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, dtype=st.sampled_from(DTYPES), padded=st.booleans())
def test_any_shape_survives_the_copy_in_and_the_view_out(shape, dtype, padded):
    values = (np.arange(int(np.prod(shape))).reshape(shape) % 100).astype(dtype)
    t = anex.tensor(values, padded=padded)
    np.testing.assert_array_equal(np.asarray(t), values)
    assert bytes(memoryview(t)) == values.tobytes()


def test_a_view_outlives_its_tensor():
    t = anex.zeros((2, 2))
    reference = weakref.ref(t)
    view = np.asarray(t)
    del t
    gc.collect()
    view[0, 0] = 7
    assert view.sum() == 7
    assert reference() is not None  # the view holds the tensor, so its memory
    del view
    gc.collect()
    assert reference() is None


def test_closing_a_tensor_with_live_views_is_a_buffer_error_and_leaves_it_usable():
    t = anex.zeros((2, 2))
    view = np.asarray(t)
    with pytest.raises(BufferError, match=r"1 live view"):
        t.close()
    with pytest.raises(anex.Error):
        t.close()
    view[0, 0] = 3
    assert t[0, 0] == 3
    del view
    t.close()
    t.close()
    assert t.closed


def test_a_closed_tensor_says_so():
    with anex.zeros((2, 2)) as t:
        pass
    for use in (lambda: np.asarray(t), lambda: t[0], lambda: t.copy_from(np.zeros((2, 2), np.float16))):
        with pytest.raises((anex.ClosedError, ValueError), match="closed"):
            use()
    assert "closed" in repr(t)


def test_indexing_reads_and_writes_through_the_view():
    t = anex.zeros((2, 3), "int32")
    t[1] = [4, 5, 6]
    t[:, 0] += 1
    assert t.tolist() == [[1, 0, 0], [5, 5, 6]]
    row = t[0]
    row[2] = 9
    assert t[0, 2] == 9
    assert len(t) == 2
    assert [r.tolist() for r in t] == [[1, 0, 9], [5, 5, 6]]


def test_array_with_copy_follows_numpys_rules():
    t = anex.ones((2,), "float32")
    copied = t.__array__(copy=True)
    copied[0] = 5
    assert t[0] == 1
    assert np.shares_memory(t.__array__(copy=False), np.asarray(t))
    assert t.__array__("int32").dtype == np.int32
    with pytest.raises(TypeError, match="needs a copy"):
        t.__array__("int32", copy=False)
    assert np.array(t).base is None


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("padded", [False, True])
def test_torch_sees_the_same_memory_through_dlpack(dtype, padded):
    t = anex.zeros((2, 3), dtype, padded=padded)
    other = torch.from_dlpack(t)
    other[1, 2] = 1
    assert t[1, 2] == 1
    assert tuple(other.shape) == (2, 3)
    del t
    gc.collect()
    assert other[1, 2] == 1


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_from_dlpack_shares_a_torch_tensors_memory(dtype):
    other = torch.zeros((3, 4), dtype=getattr(torch, dtype)).t()
    t = anex.from_dlpack(other)
    assert t.shape == (4, 3)
    t[2, 1] = 1
    assert other[2, 1] == 1
    assert t.strides == tuple(s * other.element_size() for s in other.stride())
    del other
    gc.collect()
    assert t[2, 1] == 1


def test_from_dlpack_shares_a_numpy_arrays_memory_and_numpy_ours():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    t = anex.from_dlpack(a)
    t[0, 0] = 9
    assert a[0, 0] == 9
    assert np.shares_memory(np.from_dlpack(t), a)


def test_from_dlpack_of_a_read_only_array_is_read_only():
    a = np.zeros(3, np.float32)
    a.flags.writeable = False
    t = anex.from_dlpack(a)
    assert t.readonly
    with pytest.raises(ValueError, match="read-only"):
        t[0] = 1


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros(3, np.int64), [1.0], None])
def test_from_dlpack_refuses_what_core_ml_lacks(bad):
    with pytest.raises(anex.Error):
        anex.from_dlpack(bad)


def test_four_bit_tensors_are_packed_bytes_low_half_first():
    t = anex.tensor([-8, 7, 1, -1, 3], dtype="int4")  # the example of Core ML's weight files
    assert np.asarray(t).tolist() == [0x78, 0xF1, 0x03]
    assert (t.shape, t.nbytes, t.size, t.dtype) == ((5,), 3, 5, "int4")
    u = anex.tensor([1, 2, 3, 4, 15], dtype="uint4")
    assert np.asarray(u).tolist() == [0x21, 0x43, 0x0F]
    assert anex.tensor(u).tolist() == u.tolist()
    with pytest.raises(TypeError, match="0 to 15"):
        anex.tensor([16], dtype="uint4")


def test_full_ones_and_empty_like_follow_numpy():
    assert anex.full((2, 2), 7, "int32").tolist() == [[7, 7], [7, 7]]
    assert np.asarray(anex.full((3,), 2, "int4")).tolist() == [0x22, 0x22]
    assert anex.ones((2,)).dtype == np.float16
    like = anex.empty_like(anex.zeros((2, 3), "int8", padded=True))
    assert (like.shape, like.dtype, like.packed) == ((2, 3), np.dtype("int8"), False)
    assert anex.empty_like(np.zeros((2, 3), np.float32)).dtype == np.float32
    assert anex.empty_like(like, dtype="float32").dtype == np.float32
    assert anex.empty(7, "bool").shape == (7,)


def test_python_numbers_become_the_dtypes_torch_would_give_them_in_32_bits():
    assert anex.tensor([1.5, 2]).dtype == np.float32
    assert anex.tensor([[1, 2]]).dtype == np.int32
    assert anex.tensor(True).dtype == np.bool_
    assert anex.tensor(2.5).shape == ()
    assert anex.tensor(2.5).item() == 2.5
    with pytest.raises(TypeError, match="32 bits"):
        anex.tensor([2**31])


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex64", "uint64", "M8[s]", "S3", ">f4", "nonsense"])
def test_dtypes_core_ml_lacks_are_refused_by_name(dtype):
    with pytest.raises(TypeError) as caught:
        anex.empty((2,), dtype)
    assert isinstance(caught.value, anex.DTypeError)


def test_float64_arrays_are_never_narrowed_in_silence():
    with pytest.raises(anex.DTypeError, match="float32"):
        anex.tensor(np.zeros(3))
    assert anex.tensor(np.full(3, 0.1), dtype="float16").dtype == np.float16


@pytest.mark.parametrize("shape", [(0,), (2, 0), (-1,), (1,) * 6, (2.0,), "ab", (None,), (2**40, 2**40)])
def test_shapes_core_ml_lacks_are_refused_with_the_reason(shape):
    with pytest.raises(ValueError, match=r"shape|rank|dimension|bytes") as caught:
        anex.empty(shape)
    assert isinstance(caught.value, anex.Error)


def test_more_memory_than_there_is_is_a_memory_error():
    with pytest.raises(MemoryError):
        anex.empty((2**44,), "int8")


@pytest.mark.parametrize("source", ["float16", "float32"])
@pytest.mark.parametrize("target", ["float16", "float32"])
def test_conversion_between_floats_rounds_as_numpy_does(source, target):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 50_000, dtype=np.uint32).view(np.float32)
    special = np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.9, 65520, 6e-8, 2.9e-8, 2.98e-8, 6.1e-5, 6.09e-5, 2049, 2051]
    )
    with np.errstate(all="ignore"):
        values = np.concatenate([bits, special.astype(np.float32), rng.normal(size=999).astype(np.float32)]).astype(
            source
        )
        expected = values.astype(target)
    for strided in (values, values[::3], values[::-1]):
        found = np.asarray(anex.tensor(strided, dtype=target))
        wanted = expected[:: 1 if strided is values else 3 if strided.size < values.size else -1]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
        keep = ~np.isnan(wanted)
        np.testing.assert_array_equal(found[keep], wanted[keep])
        np.testing.assert_array_equal(np.signbit(found[keep]), np.signbit(wanted[keep]))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_astype_gives_what_numpys_gives(source, target, padded):
    values = (np.arange(24).reshape(2, 3, 4) % 5).astype(source)
    t = anex.tensor(values, padded=padded)
    found = t.astype(target)
    assert found.packed
    assert found.dtype == target
    np.testing.assert_array_equal(found, values.astype(target))
    np.testing.assert_array_equal(np.asarray(t, target), values.astype(target))
    np.testing.assert_array_equal(np.asarray(t, np.float64), values.astype(np.float64))
    assert not np.shares_memory(found, t)
    assert (t.astype(target, copy=False) is t) == (source == target)


def test_astype_refuses_what_core_ml_lacks():
    t = anex.ones((4,))
    for dtype in ("float64", "complex64", "int4", ">f4"):
        with pytest.raises(anex.DTypeError):
            t.astype(dtype)
    with pytest.raises(anex.DTypeError, match="4-bit"):
        anex.tensor(np.zeros(4, np.int8), "int4").astype("int8")
    t.close()
    with pytest.raises(anex.ClosedError):
        t.astype("float32")


def test_floats_of_another_byte_order_become_tensors():
    values = np.array([1, -2.5, 7], ">f4")
    assert anex.tensor(values, "float16").tolist() == [1, -2.5, 7]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_results_may_be_empty_and_what_is_made_may_not(dtype, shape):
    t = Tensor(shape, dtype, True)  # as a program makes it that found nothing
    assert (t.shape, t.size, t.nbytes, t.packed) == (shape, 0, 0, True)
    for other in (t, pickle.loads(pickle.dumps(t)), t.astype("float32")):
        assert np.asarray(other).shape == shape
        assert torch.from_dlpack(other).shape == shape if other.dtype_name in TORCH_DTYPES else True
    t.copy_from(np.zeros(shape, dtype))
    for make in (anex.spec, anex.empty, lambda shape, dtype: anex.tensor(np.zeros(shape, dtype))):
        with pytest.raises(anex.ShapeError, match="0 is not a size"):
            make(shape, dtype)


@pytest.mark.parametrize("padded", [False, True])
def test_a_tensor_travels_by_pickle(padded):
    t = anex.tensor(np.arange(6, dtype=np.float16).reshape(2, 3), padded=padded)
    back = pickle.loads(pickle.dumps(t))
    assert back.tolist() == t.tolist()
    assert (back.strides, back.dtype) == (t.strides, t.dtype)


def test_the_repr_shows_shape_and_dtype():
    assert repr(anex.full((2,), 7, "int32")) == "anex.Tensor([7, 7], shape=(2,), dtype=int32)"
    assert "shape=(1, 64, 1, 5), dtype=float16, strides=(4096, 64, 64, 2)" in repr(
        anex.empty((1, 64, 1, 5), padded=True)
    )


@pytest.mark.memory
def test_ten_thousand_tensors_and_views_leave_no_memory_behind():
    cycle = "t = anex.zeros((64, 1024)); np.asarray(t)[0, 0] = 1; torch.from_dlpack(t)"
    assert growth("import torch", cycle, warm=1000, n=10_000) < 1 << 20


@pytest.mark.parametrize("size", [1000, 200_000, 5_000_000, 9_000_001])
def test_zeros_are_zero_in_memory_that_was_used_before(size):
    for _ in range(3):
        t = anex.zeros((size,), "int8")
        view = np.asarray(t)
        assert not view.any()
        view[...] = 7
        del view
        t.close()


def test_more_large_tensors_than_are_kept_may_come_and_go_in_any_order():
    rng = np.random.default_rng(5)
    alive = {}
    for i in range(60):
        t = anex.full((int(rng.integers(1, 40)) << 17,), i % 100, "int8")
        alive[i] = t
        if len(alive) > 12:
            number = int(rng.choice(list(alive)))
            assert (np.asarray(alive.pop(number)) == number % 100).all()
    assert all((np.asarray(t) == i % 100).all() for i, t in alive.items())


def test_a_consumer_that_cannot_read_strides_is_refused_a_padded_tensor():
    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    file = io.BytesIO()
    file.write(anex.tensor(values, padded=False))
    assert file.getvalue() == b"".join([anex.tensor(values, padded=False)]) == values.tobytes()
    t = anex.tensor(values, padded=True)
    for take in (io.BytesIO().write, lambda t: b"".join([t]), torch.frombuffer):
        with pytest.raises((BufferError, TypeError, ValueError)):
            take(t)
    assert bytes(t) == values.tobytes()
    t.close()


def test_copying_a_tensor_onto_itself_reads_before_it_writes():
    t = anex.tensor([1, 2, 3, 4])
    t.copy_from(np.asarray(t)[::-1])
    assert t.tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize("values", [[256], [-1], [float("nan")], [1e9]])
def test_values_an_integer_dtype_cannot_hold_are_refused(values):
    with pytest.raises(anex.DTypeError, match="0 to 255"):
        anex.tensor(values, dtype="uint8")
    with pytest.raises(anex.DTypeError, match="0 to 255"):
        anex.full((2,), values[0], "uint8")


def test_fewer_threads_than_one_are_refused():
    with pytest.raises(anex.ArgumentError, match="0 threads"):
        anex.set_num_threads(0)
