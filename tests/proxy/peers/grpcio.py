"""A service and its client by grpcio, for tests/proxy/grpc_peer.rs: says its port, is told the gateway's address, says "done".

Messages are bytes, so no generated code is needed. Whatever is not as it should be is an exception, and so an exit code.
"""

import sys
import threading
from concurrent import futures

import grpc

STREAMS = 1000


def upper(request, _context):
    return request.upper()


def count(requests, _context):
    return b"%d" % sum(1 for _ in requests)


def repeat(request, _context):
    for number in range(100):
        yield request + b"%d" % number


def chat(requests, _context):
    for request in requests:
        yield request.upper()


cancelled = threading.Event()


def hang(_request, context):
    context.add_callback(cancelled.set)
    cancelled.wait(60)
    return b""


def refuse(_request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % sure")


def healthy(_request, _context):
    return b"\x08\x01"


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), maximum_concurrent_rpcs=4 * STREAMS, options=[
        ("grpc.max_receive_message_length", 16 << 20), ("grpc.so_reuseport", 0)])
    handlers = {
        "Upper": grpc.unary_unary_rpc_method_handler(upper),
        "Count": grpc.stream_unary_rpc_method_handler(count),
        "Repeat": grpc.unary_stream_rpc_method_handler(repeat),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(healthy)}
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("test.Peer", handlers),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
    ))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, None


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r:.300} is not {wanted!r:.300}")


def ask(address):
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        same(channel.unary_unary("/test.Peer/Upper")(b"hello", timeout=30), b"HELLO")
        same(channel.stream_unary("/test.Peer/Count")(iter([b"x"] * 1000), timeout=30), b"1000")
        same(list(channel.unary_stream("/test.Peer/Repeat")(b"n", timeout=30)), [b"n%d" % n for n in range(100)])
        words = [b"a", b"b", b"c"]
        same(list(channel.stream_stream("/test.Peer/Chat")(iter(words), timeout=30)), [b"A", b"B", b"C"])
        large = b"x" * (4 << 20)
        same(channel.unary_unary("/test.Peer/Upper")(large, timeout=60), large.upper())
        same(code_of(lambda: channel.unary_unary("/test.Peer/Refuse")(b"", timeout=30)),
             (grpc.StatusCode.NOT_FOUND, "no such thing: 100 % sure"))
        same(code_of(lambda: channel.unary_unary("/test.Peer/Nothing")(b"", timeout=30))[0],
             grpc.StatusCode.UNIMPLEMENTED)
        same(code_of(lambda: channel.unary_unary("/nowhere/Nothing")(b"", timeout=30)),
             (grpc.StatusCode.UNIMPLEMENTED, "no route matches this request"))
        same(code_of(lambda: channel.unary_unary("/test.Peer/Hang")(b"", timeout=0.3))[0],
             grpc.StatusCode.DEADLINE_EXCEEDED)
        if not cancelled.wait(60):
            raise AssertionError("the service was not told that nobody waits any more")
        many(channel)


def many(channel):
    """Calls that are all made at once."""
    calls = [channel.unary_unary("/test.Peer/Upper").future(b"n%d" % n, timeout=120) for n in range(STREAMS)]
    for number, call in enumerate(calls):
        same(call.result(), b"N%d" % number)


def main():
    server, port = serve()
    print(port, flush=True)
    ask(sys.stdin.readline().strip())
    print("done", flush=True)
    server.stop(0)


main()
