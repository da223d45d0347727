"""One connection on an event loop: the theory of operation.

A `ConnectionProtocol` stands between a transport of asyncio and an endpoint, which is a view, a client or the session
of an ASGI application. It is made of four classes, each on top of the one before: `codec.HotPath` (every read and every
plain message), `Sending`, `Receiving`, and `ConnectionProtocol` (beginning, callbacks of the transport, end). The rules
of the RFCs are those of its `sansio.Connection`. Each part beside them (`Heartbeat`, `FlowControl`, `Inbox`,
`StreamQueue`, `Sender`, `Line`, `Closing`, `Hooks`) says in its own file, as `Owner`, what it needs of the connection.

States
======

Each state is an enum, with its transitions in the docstring of its file:

| state | of |
| --- | --- |
| `phases.Phase` | the connection |
| `sansio.states.Outgoing` | the sending direction |
| `sansio.states.Incoming` | the receiving direction |
| `closing._Step` | the end of the transport, within the phase CLOSING |
| `heartbeat._Watch` | the last ping |
| `transports._End` | the end of a `VirtualTransport` |

`Phase` is the outermost. No phase comes twice, and LOST leads to CLOSED in every case.

| phase | from | messages are handled | messages may be sent |
| --- | --- | --- | --- |
| CONNECTING | the 101 response | no | yes |
| OPEN | `start` | yes | while `Connection.outgoing` is OPEN |
| CLOSING | a close frame has left, or the stream has ended | those that came before the peer's close frame | no |
| LOST | `connection_lost` | those that wait, for CLOSE_TIMEOUT | no |
| CLOSED | every hook has ended, or the wait for it | no | no |

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
| `corked` | one read, `start`, early bytes, the draining of the inbox or the end of a decoding is at work | it does \
not nest; its setter flushes |
| `queued` | the transport may hold bytes (compiled codec only) | `flush`, and `connection_made` at first |
| `busy` | a message is being written or compressed: a send in between comes from a signal handler or a finalizer | \
the writing method |
| `broken` | written bytes are incomplete: nothing may follow them | `cut`, for good |
| `writes_paused` | the transport is above its high-water mark, with SLOW_CONSUMER "wait" | `pause_writing`, \
`resume_writing` |
| `SlowConsumer.lags` | the same, with "drop" and "close" | the same |
| `alive` | bytes have come since the last check of the heartbeat | every read; `take_sign_of_life` clears it |
| `FlowControl.holds` | reading is paused: INBOX, FRAMES, WRITES, EARLY, PARTS | `hold` and `release`; the first close \
frame releases all but EARLY |
| `lost` | the phase is LOST or CLOSED; the codec asks before it writes | `connection_lost`, for good |
| `terminated` | the connection ends without waiting for the peer | `terminate`, for good |

Messages in parts
=================

`Connection.parts` is fixed at the beginning. The reader then gives parts with the opcodes of fragments, and a
`StreamQueue` takes the place of the dispatcher, or of a client's inbox. A message goes through these states:

| state | the message | from |
| --- | --- | --- |
| waits | behind the current one, with the parts that have come | its first part |
| current | is read by its handler, or by the task that asked for it | the one before is over |
| left | its parts are discarded as they come | the handler has returned, or the next message is asked for |
| over | nothing is left to take, and the last part has come | |

At most one message is current or left, and at most one incomplete. Parts that wait are bounded by MAX_WAITING_BYTES and
one read; the hold PARTS keeps back more. Compressed parts are decompressed when they are taken, so messages are
decompressed in order. Parts of a message that is left are decompressed too if later messages may refer to them.
`StreamQueue.end`, at our close frame or the loss of the transport, lets the waiting parts be taken; after them readers
get `ConnectionClosed`.

Invariants
==========

1. Messages are delivered only from a callback of the loop, while no task is running: handlers and tasks that wait at an
   inbox are stepped there and then.
2. Only `flush` writes to a transport that has been attached. `Closing` ends it.
3. After `report_closed` nothing that is reachable from a view refers to the endpoint, to the dispatcher's owner or to
   the heartbeat's, so that no cycle is left for the collector.
4. One thread at a time works on a direction of permessage-deflate: the loop's, or one of `loop.threads`.
5. Messages that `received` is given may still be encoded. `respond` answers a close frame or a breach, after the
   messages before it have been handed on.
6. Clock, receive buffer and threads belong to a thread, so a thread runs one loop.
7. The compiled codec does more than its specification in three places: it handles a read in portions, it hands a read
   that is one whole message to the idle worker, or to the task that waits for it, without a list, and it writes past
   the transport while that holds nothing.

Who may call whom
=================

- From any thread: `send`, `send_frame`, `send_close` and `safe_close` of an endpoint, which `pending.hop` carries into
  the thread of the loop, and `broadcast`. Everything else belongs to the thread of the loop.
- From a callback of the loop, with no task running: `deliver`, `drain`, `resume`, `buffer_updated`,
  `codec.turn.Turn.wake`.
- From tasks: everything an endpoint offers. `Turn.wake_soon`, `Turn.fail` and `call_soon` lead from there to the
  callbacks above.
- From a signal handler or a finalizer that interrupts the thread: `send`, which waits in line while `busy` is set.

Walks
=====

A received byte, to `on_receive`:

1. `codec.hotpath.HotPath.get_buffer` gives the loop memory, by `codec.reader.MessageReader.get_buffer`.
2. `codec.hotpath.HotPath.buffer_updated` corks, and has `codec.reader.MessageReader.buffer_updated` read all frames.
3. If there are control frames, breaches, a rate limit or extensions of a user's own:
   `protocol.receiving.Receiving.received` applies the rules of `sansio.connection.Connection.received`.
4. `codec.dispatcher.Dispatcher.deliver` hands each message to `codec.worker.Worker.start`, which calls
   `view.WebSocketView.on_receive`.
5. `codec.hotpath.HotPath.uncork` writes the replies.

A received byte, to the reader of an `IncomingMessage`:

1. `codec.hotpath.HotPath.buffer_updated` has `codec.reader.MessageReader.buffer_updated` make a part of the bytes.
2. `protocol.stream_queue.StreamQueue.deliver` adds the part to its message, and holds reading if too much waits.
3. At the first part of a message `codec.dispatcher.Dispatcher.deliver` starts
   `protocol.stream_queue.StreamQueue.handle`, which calls `view.WebSocketView.on_stream`. At later parts
   `protocol.message.IncomingMessage.wake` steps the reader.
4. The reader takes the part, decoded, and `protocol.stream_queue.StreamQueue.taken` resumes reading once there is room.

A sent str, to bytes:

1. `view.WebSocketView.send` calls `codec.hotpath.HotPath.send`.
2. A plain message goes to `codec.writer.FrameWriter.write`. Any other goes through
   `protocol.sending.Sending.send_otherwise`, `protocol.sender.Sender.send` (which may let it wait in
   `protocol.line.Line`) and `sansio.connection.Connection.send` to the same writer.
3. `codec.hotpath.HotPath.flush` takes the bytes by `codec.writer.FrameWriter.take`.
4. `protocol.sending.Sending.write_chunks` gives them to the transport.

A refused handshake:

1. The host calls `view.WebSocketView.start` with the request.
2. `sansio.handshake.check` raises `exceptions.HandshakeError`, with a status.
3. `hosts.upgrade.refuse` renders it by `sansio.handshake.refusal` and writes it.
4. `protocol.lingering.Lingering` ends our side of the stream, and lets the peer read the answer.
"""
