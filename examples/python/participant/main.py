"""The stock service of the order saga.

    main          the gRPC service: a request in, an outcome out
    registration  tells the daemon where it is
    barrier       one call, one effect
    stock         the shop's own part

`SAGAD_ADDR` is the daemon's URL, `LISTEN` where to listen, `DATABASE` the SQLite file.
"""

import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

import barrier
import grpc
import registration
import stock
from barrier import Act, Answer, Call, Done, Refused, Superseded, Undo
from sagad.v1 import participant_pb2 as pb
from sagad.v1.participant_pb2_grpc import ParticipantServiceServicer, add_ParticipantServiceServicer_to_server

# Less than the two seconds for which the order saga waits for an answer.
DATABASE_TIMEOUT_S = 1
THREADS = 16
# Calls that are at work when the service ends get this long.
DRAIN_S = 5


class StockService(ParticipantServiceServicer):
    """Answers the daemon's calls. An exception is an unknown outcome: it asks again, with the same key."""

    def __init__(self, database: str) -> None:
        """Answer from this database file."""
        self.database = database
        with closing(self.connect()) as db:
            db.execute(barrier.SCHEMA)
            db.executescript(stock.SCHEMA)

    def Execute(self, request: pb.ExecuteRequest, _: grpc.ServicerContext) -> pb.ExecuteResponse:  # noqa: N802
        """Run an action."""
        match self.answer(Act(request.idempotency_key), request.action, request.input_json):
            case Done(output_json):
                return pb.ExecuteResponse(done=pb.Done(output_json=output_json))
            case Refused(code, message):
                return pb.ExecuteResponse(refused=pb.Refused(code=code, message=message))
            case Superseded():
                return pb.ExecuteResponse(superseded=pb.Superseded())

    def Compensate(self, request: pb.CompensateRequest, _: grpc.ServicerContext) -> pb.CompensateResponse:  # noqa: N802
        """Undo an action."""
        match self.answer(Undo(request.action_idempotency_key), request.action, request.input_json):
            case Done(output_json):
                return pb.CompensateResponse(done=pb.Done(output_json=output_json))
            case Refused(code, message):
                return pb.CompensateResponse(refused=pb.Refused(code=code, message=message))
            case Superseded():
                return pb.CompensateResponse(superseded=pb.Superseded())

    def Probe(self, _: pb.ProbeRequest, context: grpc.ServicerContext) -> pb.ProbeResponse:  # noqa: N802
        """Only pivots and pending steps are asked about; `deduct` is neither."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no probe here")

    def answer(self, call: Call, action: str, input_json: str) -> Answer:
        """Answer a call in a transaction of its own."""
        with closing(self.connect()) as db:
            return barrier.once(db, call, lambda: serve(db, call, action, input_json))

    def connect(self) -> sqlite3.Connection:
        """Open the database; transactions begin and end where the barrier says so."""
        return sqlite3.connect(self.database, timeout=DATABASE_TIMEOUT_S, isolation_level=None)


def serve(db: sqlite3.Connection, call: Call, action: str, input_json: str) -> Answer:
    """Do what is asked; the barrier has seen to it that this is the first time."""
    try:
        pieces = stock.Pieces.parse(input_json)
    except ValueError as error:
        # The input is the same on every attempt, so this is a definite no.
        return Refused("BAD_INPUT", str(error))
    match call, action:
        case Act(), "deduct":
            return stock.deduct(db, pieces)
        case Undo(), "restore":
            return stock.restore(db, pieces)
        case _:
            return Refused("UNKNOWN_ACTION", f"there is no {action} here")


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    daemon = os.environ.get("SAGAD_ADDR", "http://127.0.0.1:7420")
    listen = os.environ.get("LISTEN", "127.0.0.1:9001")
    service = StockService(os.environ.get("DATABASE", "stock.db"))

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    server = grpc.server(ThreadPoolExecutor(max_workers=THREADS))
    add_ParticipantServiceServicer_to_server(service, server)
    host, _, _ = listen.rpartition(":")
    port = server.add_insecure_port(listen)
    server.start()
    # Returns once the registration has ended; the calls that are still at work are finished.
    registration.keep(grpc.insecure_channel(daemon.removeprefix("http://")), f"http://{host}:{port}", stop)
    server.stop(grace=DRAIN_S).wait()


if __name__ == "__main__":
    main()
