#!/usr/bin/env python3
"""A TCP proxy that is a bad network: it delays, starves, cuts, resets, or falls silent, by a seed.

    proxy.py --target HOST:PORT [--listen PORT] [--seed N] [--share 0.3] [--faults latency,reset,...]

In Python: `with Proxy((host, port), seed=1) as proxy: proxy.port`. Each connection draws its fate when it is accepted:

    pass       nothing happens to it
    latency    every piece comes up to `delay` seconds late
    bandwidth  `rate` bytes a second each way
    reset      after some bytes both ends get a RST
    cut        after some bytes both ends get a FIN, what was under way is dropped
    half       after some bytes nothing is forwarded any more, for `silence` seconds; then a RST

`switch` makes all of it harmless (False) or as configured (True) at any time; `cut_all()` resets what is open.
"""

import argparse
import asyncio
import collections
import random
import socket
import struct
import threading

FAULTS = ("latency", "bandwidth", "reset", "cut", "half")
PIECE = 4096


class Fate:
    def __init__(self, kind, rng, options):
        self.kind = kind
        self.delay = rng.uniform(0, options["delay"])
        self.rate = options["rate"]
        self.left = rng.randrange(options["bytes"])
        self.silence = options["silence"]


class Proxy:
    def __init__(self, target, seed=0, share=0.3, faults=FAULTS, port=0, delay=0.2, rate=65536, cut_after=6000,
                 silence=3.0, sure=0):
        self.target = target
        self.rng = random.Random(seed)
        self.share = share
        self.sure = sure  # so many connections certainly meet with a fault, from when the switch is on
        self.faults = tuple(faults)
        self.options = {"delay": delay, "rate": rate, "bytes": cut_after, "silence": silence}
        self.switch = True
        self.counts = collections.Counter()
        self.writers = set()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.__run, daemon=True)
        self.thread.start()

    def __run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self.__serve, sock=self.listener))
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    def __fate(self):
        kind = "pass"
        if self.switch and self.faults and (self.sure > 0 or self.rng.random() < self.share):
            kind = self.rng.choice(self.faults)
            self.sure -= 1
        self.counts[kind] += 1
        return Fate(kind, self.rng, self.options)

    async def __serve(self, reader, writer):
        fate = self.__fate()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self.counts["refused"] += 1
            self.__reset(writer)
            return
        pair = {writer, far_writer}
        self.writers |= pair
        try:
            await asyncio.gather(self.__pump(reader, far_writer, pair, fate), self.__pump(far_reader, writer, pair, fate))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in pair:
                self.writers.discard(each)
                self.__reset(each)

    async def __pump(self, reader, writer, pair, fate):
        while True:
            piece = await reader.read(PIECE)
            if not piece:
                if writer.can_write_eof() and not writer.is_closing():
                    writer.write_eof()
                return
            if fate.kind == "latency":
                await asyncio.sleep(fate.delay)
            elif fate.kind == "bandwidth":
                await asyncio.sleep(len(piece) / fate.rate)
            elif fate.kind in ("reset", "cut", "half"):
                if fate.left < len(piece):
                    await self.__break(writer, piece[: fate.left], pair, fate)
                    raise ConnectionResetError
                fate.left -= len(piece)
            writer.write(piece)
            await writer.drain()

    async def __break(self, writer, rest, pair, fate):
        self.counts["broken"] += 1
        writer.write(rest)
        if fate.kind == "half":
            await asyncio.sleep(fate.silence)
        for each in pair:
            if fate.kind == "cut":
                each.close()
            else:
                self.__reset(each)

    @staticmethod
    def __reset(writer):
        sock = writer.get_extra_info("socket")
        if sock is not None and not writer.is_closing():
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
            writer.transport.abort()

    def cut_all(self):
        def cut():
            for writer in list(self.writers):
                self.__reset(writer)

        self.loop.call_soon_threadsafe(cut)

    def close(self):
        self.loop.call_soon_threadsafe(self.server.close)
        self.cut_all()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--share", type=float, default=0.3, help="of connections that something happens to")
    parser.add_argument("--faults", default=",".join(FAULTS))
    options = parser.parse_args()
    host, port = options.target.rsplit(":", 1)
    proxy = Proxy((host, int(port)), options.seed, options.share, options.faults.split(","), options.listen)
    print(f"127.0.0.1:{proxy.port} -> {options.target}, seed {options.seed}", flush=True)
    try:
        proxy.thread.join()
    except KeyboardInterrupt:
        print(dict(proxy.counts))


if __name__ == "__main__":
    main()
