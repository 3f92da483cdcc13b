from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from saccade.serve.batching import Batcher, QueueFullError


def run(body: Callable[..., Any], decode: Callable[[bytes], Any] = len, compute: Any = None, **options: Any) -> Any:
    """Run `body` with a batcher, and return its result and the batches."""
    batches: list[list[Any]] = []

    def squares(values: list[int]) -> Sequence[int]:
        batches.append(values)
        return [value**2 for value in values]

    async def main() -> Any:
        chosen: dict[str, Any] = {"max_batch": 4, "max_wait_s": 0.0, "max_images": 100, "num_threads": 2, **options}
        batcher = Batcher(decode, compute or squares, **chosen)
        try:
            return await body(batcher)
        finally:
            batcher.close()

    return asyncio.run(main()), batches


def test_each_image_gets_its_own_result_in_its_place() -> None:
    async def body(batcher: Batcher) -> list[list[int]]:
        requests = [[b"x" * (number + place) for place in range(number % 3 + 1)] for number in range(40)]
        return await asyncio.gather(*[batcher.submit(images, 30) for images in requests])

    results, batches = run(body)
    assert results == [[(number + place) ** 2 for place in range(number % 3 + 1)] for number in range(40)]
    assert max(map(len, batches)) <= 4


def test_images_that_arrive_while_a_batch_is_computed_form_the_next_one() -> None:
    is_computing, may_end = threading.Event(), threading.Event()
    sizes = []

    def compute(values: list[int]) -> list[int]:
        sizes.append(len(values))
        is_computing.set()
        assert may_end.wait(30)
        return values

    async def body(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit([b"a"], 30))
        await asyncio.to_thread(is_computing.wait, 30)
        others = [asyncio.create_task(batcher.submit([b"a"], 30)) for _ in range(7)]
        while batcher.num_waiting < 8:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)  # until they are decoded
        may_end.set()
        await asyncio.gather(first, *others)

    run(body, compute=compute)
    assert sizes == [1, 4, 2, 1]  # powers of two


def test_a_batch_waits_only_for_images_that_are_being_decoded() -> None:
    def slow(data: bytes) -> int:
        time.sleep(0.3 if data == b"slow" else 0)
        return len(data)

    async def body(batcher: Batcher) -> list[list[int]]:
        return await asyncio.gather(batcher.submit([b"slow"], 30), batcher.submit([b"ab"], 30))

    assert run(body, slow, max_wait_s=20.0)[1] in ([[2, 4]], [[4, 2]])
    assert run(body, slow, max_wait_s=0.01)[1] == [[2], [4]]

    async def alone(batcher: Batcher) -> float:
        start_s = time.monotonic()
        await batcher.submit([b"ab"], 30)
        return time.monotonic() - start_s

    assert run(alone, max_wait_s=20.0)[0] < 10


def test_errors_stay_with_their_image_or_their_batch() -> None:
    def decode(data: bytes) -> int:
        if data == b"bad":
            raise ValueError("bad image")
        return len(data)

    async def body(batcher: Batcher) -> list[Any]:
        return await batcher.submit([b"1", b"bad", b"22"], 30)

    first, second, third = run(body, decode)[0]
    assert (first, third) == (1, 4)
    assert isinstance(second, ValueError)

    def fail(values: list[int]) -> list[int]:
        raise RuntimeError("no memory")

    async def twice(batcher: Batcher) -> list[Any]:
        return [*await batcher.submit([b"1"], 30), *await batcher.submit([b"1"], 30)]

    assert [str(each) for each in run(twice, compute=fail)[0]] == ["no memory", "no memory"]


def test_a_full_queue_refuses_and_recovers() -> None:
    may_end = threading.Event()

    def compute(values: list[int]) -> list[int]:
        assert may_end.wait(30)
        return values

    async def body(batcher: Batcher) -> list[int]:
        tasks = [asyncio.create_task(batcher.submit([b"a", b"b"], 30)) for _ in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await batcher.submit([b"a"], 30)
        may_end.set()
        await asyncio.gather(*tasks)
        assert batcher.num_waiting == 0
        return await batcher.submit([b"a"], 30)

    assert run(body, compute=compute, max_images=10)[0] == [1]


def test_an_abandoned_request_is_neither_decoded_nor_computed() -> None:
    may_end, decoded = threading.Event(), []

    def decode(data: bytes) -> int:
        decoded.append(data)
        assert may_end.wait(30)
        return len(data)

    async def body(batcher: Batcher) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await batcher.submit([b"a", b"b", b"c"], 0.05)
        may_end.set()
        assert await batcher.submit([b"d"], 30) == [1]
        while batcher.num_waiting:
            await asyncio.sleep(0.001)

    assert run(body, decode, num_threads=1)[1] == [[1]]
    assert decoded == [b"a", b"d"]


def test_closing_computes_what_waits_and_abandons_what_never_ends() -> None:
    forever = threading.Event()

    async def body(batcher: Batcher) -> list[int]:
        task = asyncio.create_task(batcher.submit([b"ab"], 30))
        await asyncio.sleep(0)
        batcher.close()
        return await task

    assert run(body, max_wait_s=10.0)[0] == [4]

    async def stuck(batcher: Batcher) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await batcher.submit([b"ab"], 0.05)

    start_s = time.monotonic()
    run(stuck, decode=lambda data: forever.wait(300), num_threads=1)
    assert time.monotonic() - start_s < 60
    forever.set()
