"""One connection on an event loop: the theory of operation.

A `ConnectionProtocol` stands between a transport of asyncio and an endpoint, which is a view, a client or the session
of an ASGI application. It has four layers, each a subclass of the one before: `codec.HotPath` (every read and every
plain message), `Sending`, `Receiving`, and `ConnectionProtocol` (start, callbacks of the transport, end). Its
`sansio.Connection` applies the rules of the RFCs. Each other part (`Heartbeat`, `FlowControl`, `Inbox`, `StreamQueue`,
`Sender`, `SendQueue`, `Closing`, `Hooks`) declares in its own file, as `Owner`, the members of the connection that it
uses.

States
======

Each state is an enum. The docstring of its file has the transitions:

| enum | state of |
| --- | --- |
| `phases.Phase` | the connection |
| `sansio.states.Outgoing` | the sending direction |
| `sansio.states.Incoming` | the receiving direction |
| `closing._Step` | the end of the transport, within the phase CLOSING |
| `heartbeat._Watch` | the last ping |
| `virtual_transport._End` | the end of a `VirtualTransport` |

`Phase` is the outermost. No phase occurs twice, and CLOSED follows LOST in every case.

| phase | begins with | messages are handled | messages may be sent |
| --- | --- | --- | --- |
| CONNECTING | the 101 response | no | yes |
| OPEN | `start` | yes | while `Connection.outgoing` is OPEN |
| CLOSING | our close frame, or the end of the stream | those received before the peer's close frame | no |
| LOST | `connection_lost` | those that wait, for at most CLOSE_TIMEOUT | no |
| CLOSED | the end of the last hook, or of the wait for it | no | no |

Within the phase OPEN, `outgoing` is ENDING while a close frame waits behind earlier messages. It becomes CLOSED with
the close frame or the end of the stream, and the phase CLOSING begins at the next `move_on`.

Flags
=====

| flag | true while | set by |
| --- | --- | --- |
| `direct_in` | the view does not pull, no RATE_LIMIT is set, there is no extension but permessage-deflate, and \
`outgoing` is OPEN | `update_direct`, after any change |
| `direct_out` | the stream has not ended, there is no extension but permessage-deflate, `Sender` is idle, \
`SlowConsumer` does not lag, and neither `busy` nor `broken` is set | the same; `cut` and `connection_lost` end it |
| `corked` | one read, `start`, early bytes, waiting messages or the result of a decoding is processed | the \
same code, which flushes at the end; it does not nest |
| `Burst.gathering` | messages to connections that are not corked wait for those that follow in this iteration of the \
loop | the second message of a read, or a broadcast to many; its callback in the next iteration flushes |
| `queued` | the transport may hold bytes (compiled codec only) | `flush`, and `connection_made` at first |
| `busy` | a message is being written or compressed: a send in between comes from a signal handler or a finalizer | \
the writing method |
| `broken` | written bytes are incomplete, so nothing may follow them | `cut`, for good |
| `writes_paused` | the transport is above its high-water mark, with SLOW_CONSUMER "wait" | `pause_writing`, \
`resume_writing` |
| `SlowConsumer.lags` | the same, with "drop" and "close" | the same |
| `alive` | bytes have been received since the last check of the heartbeat | every read; `take_sign_of_life` clears it |
| `FlowControl.holds` | reading is paused: INBOX, FRAMES, WRITES, EARLY, PARTS | `hold` and `release`; the first close \
frame releases all but EARLY |
| `lost` | the phase is LOST or CLOSED; the codec asks before it writes | `connection_lost`, for good |
| `terminated` | the connection ends without a wait for the peer | `terminate`, for good |

Messages in parts
=================

`Connection.parts` is fixed before the first byte. If it is set, the reader returns parts with the opcodes of fragments,
and a `StreamQueue` replaces the dispatcher, or the inbox of a client. A message goes through these states:

| state | the message | begins with |
| --- | --- | --- |
| waits | is behind the current one, with the parts received so far | its first part |
| current | is read by its handler, or by the task that has requested it | the end of the message before it |
| discarded | loses its parts as they arrive | the return of the handler, or the request for the next message |
| over | has no part left, and will get none | |

At most one message is current or discarded, and at most one is incomplete. MAX_WAITING_BYTES and the size of one read
bound the waiting parts, because the hold PARTS then stops reading. Compressed parts are decompressed when they are
read, so messages are decompressed in order. Parts of a discarded message are decompressed too if later messages may
refer to them. After `StreamQueue.end`, at our close frame or the loss of the transport, the waiting parts can still be
read; after them readers get `ConnectionClosed`.

Invariants
==========

1. Messages are delivered only from a callback of the loop, while no task is running: handlers and tasks that wait at an
   inbox are stepped there and then. The bridge of ASGI servers leaves its task for that (`stepping.call_outside_task`).
2. Only `flush` writes to a transport that has been attached. `Closing` ends it.
3. After `report_closed` no object reachable from a view refers to the endpoint, to the consumer's owner or to the
   heartbeat's, so no cycle is left for the garbage collector.
4. One thread at a time works on a direction of permessage-deflate: the loop's, or one of `loop.threads`.
5. The arguments of `received` may still be encoded. `respond` answers a close frame or a breach after the earlier
   messages have been delivered.
6. Clock and burst belong to a loop. Receive buffer and threads belong to a thread, which runs one loop at a time.
7. The compiled codec does more than its specification in four places. It handles a read in portions. It passes a read
   that is one whole message to the idle worker, or to the task that waits for it, without a list. It uses a completed
   awaitable of `recv` again unless the program keeps it. It writes to the socket directly while the transport's buffer
   is empty.

Threads and callers
===================

- From any thread: `broadcast`; `send`, `send_frame`, `ping`, `send_close`, `close` and `safe_close` of an endpoint,
  which `call_threadsafe` schedules in the thread of the loop; and its `terminate`. All other calls belong to the thread
  of the loop.
- From a callback of the loop, with no task running: `deliver`, `drain`, `resume`, `buffer_updated`,
  `codec.waiter.Waiter.wake`.
- From tasks: all public methods of an endpoint. `Waiter.wake_soon`, `Waiter.fail` and `call_soon` schedule the
  callbacks above.
- From a signal handler or a finalizer that interrupts the thread: `send`, which is queued while `busy` is set.

Data paths
==========

A received byte, to `on_receive`:

1. `codec.hotpath.HotPath.get_buffer` returns the buffer for the read, by `codec.reader.MessageReader.get_buffer`.
2. `codec.hotpath.HotPath.buffer_updated` corks, and parses all frames by `codec.reader.MessageReader.buffer_updated`.
3. If there are control frames, breaches, a rate limit or extensions of a user's own:
   `protocol.receiving.Receiving.received` applies the rules of `sansio.connection.Connection.received`.
4. `codec.dispatcher.Dispatcher.deliver` hands each message to `codec.worker.Worker.start`, which calls
   `view.WebSocketView.on_receive`.
5. `codec.hotpath.HotPath.uncork` writes the replies. After a read that has taken long, those that follow are small,
   and `protocol.receiving.Receiving.yield_reading` gives other connections a turn between them.

A received byte, to the reader of an `IncomingMessage`:

1. `codec.hotpath.HotPath.buffer_updated` gets the bytes as a part, by `codec.reader.MessageReader.buffer_updated`.
2. `protocol.stream_queue.StreamQueue.deliver` adds the part to its message, and holds reading if too many bytes wait.
3. At the first part of a message `codec.dispatcher.Dispatcher.deliver` starts
   `protocol.stream_queue.StreamQueue.handle`, which calls `view.WebSocketView.on_stream`. At later parts
   `protocol.incoming_message.IncomingMessage.wake` steps the reader.
4. The reader gets the decoded part. `protocol.stream_queue.StreamQueue.taken` resumes reading once there is room.

A sent str, to bytes:

1. `view.WebSocketView.send` calls `codec.hotpath.HotPath.send`.
2. A plain message goes to `codec.writer.FrameWriter.write`. Any other message goes through
   `protocol.sending.Sending.send_otherwise`, `protocol.sender.Sender.send` (which may queue it in
   `protocol.send_queue.SendQueue`) and `sansio.connection.Connection.send` to the same writer.
3. `codec.hotpath.HotPath.flush` drains the writer by `codec.writer.FrameWriter.take`: at once, or at the end of the
   read (`corked`) or of the burst (`codec.burst.Burst.end`).
4. `protocol.sending.Sending.write_chunks` writes the bytes to the transport.

A refused handshake:

1. The host calls `view.WebSocketView.start` with the request.
2. `sansio.handshake.check` raises `exceptions.HandshakeError`, with a status.
3. `hosts.upgrade.refuse` renders it by `sansio.handshake.refusal` and writes it.
4. `protocol.lingering.Lingering` ends our side of the stream, and keeps the socket open until the peer has read the
   response.
"""
