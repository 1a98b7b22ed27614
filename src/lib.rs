//! ringgate: an API gateway that keeps APIs answering while the services behind them fail.
//!
//! This page is the architecture document: it says where things are and, as important, what there is *not*. README.md is for users.
//! When goals conflict their order is: correct, bounded, fast, simple to operate.
//!
//! # Two planes
//!
//! | plane | runs | may |
//! |---|---|---|
//! | data | [`worker`]: one per core, pinned, on an event loop of its own (on Linux 5.6 to 6.0: monoio's), no tokio | never lock, never block, never log, allocate nothing per request in steady state |
//! | control | [`control`]: one thread, tokio current-thread, the well-kept ecosystem | be slow: check config, probe health, serve the admin API, watch the workers |
//!
//! They talk in three ways only. A worker is *given* an immutable [`worker::Shared`] (configuration, compiled routes, limits) when it
//! starts, and the next one with each reload. The control thread sends it small [`worker::Command`]s through a bounded mailbox. A worker
//! *publishes* its numbers into memory that only it writes ([`observe::stats`]), and its access log through a ring ([`observe::access_log`]).
//!
//! Neither plane writes to standard error: what operators are told, panics included, goes through a bounded queue to a thread that may
//! block ([`observe::own_log`]).
//!
//! # The rooms, in reading order
//!
//! | room | what is in it | what is not |
//! |---|---|---|
//! | [`limits`], [`units`], [`error`] | every static bound with its reason; ids and time; whose fault, which status, which token | – |
//! | [`tls`] | certificates, which of them a client gets, tickets, the rules of sessions | sockets |
//! | [`config`] | the file as written, all its errors at once, the configuration as used | defaults anywhere else |
//! | [`policy`] | every decision: routes, identity and access, balancers, ejection, deadlines, retries, limits | clocks, sockets, async, global randomness, unsafe |
//! | [`http`] | HTTP/1.1 and HTTP/2 as bytes in, values out: heads, framing, bodies, encoding | the same list; routing, retries |
//! | [`net`] | sockets, blocks, timers, pools, the driver ladder | decisions |
//! | [`worker`] | one core: its state, its generations, its connections, the straight line of a request | shared memory that is written per request |
//! | [`observe`] | numbers, usage, access log, the gateway's own log | – |
//! | [`control`] | supervisor, crew, reload, names, probes, admin API | anything on a request's path |
//! | [`demo`] | `ringgate demo`: three services, failures, a gateway, its clients | privileged access to the gateway |
//!
//! Arrows point one way: `main → control → worker → net`, and `worker → {policy, http, observe}`; `policy` and `http` do not know each
//! other. `tests/tidy.rs` holds the arrows and the purity.
//!
//! # One request, one straight line
//!
//! `accept → read_head → route → identify → authorize → admit → pick → checkout → send → await_head → classify → relay → record → checkin`
//!
//! | verb | where | on failure |
//! |---|---|---|
//! | accept | `worker::accept` | close, count |
//! | read_head | `worker::down`, [`http::head`] | 400 (with its [`error::Rule`]) 408 414 431 501 505, close |
//! | route | `worker::plan`, [`policy::router`] | 404, 405 with Allow, 508 |
//! | identify | `worker::identify`, [`policy::identity`], [`policy::token`], [`policy::login`] | 401 with WWW-Authenticate, 503 |
//! | authorize | `worker::identify`, [`policy::access`] | 403 |
//! | admit | `worker::plan`, [`policy::admission`]; limits that ask for nobody come before identify ([`policy::admission::Met`]) | 429 with RateLimit fields, 503 |
//! | pick | [`policy::exchange`] → [`policy::cluster`] | 503 |
//! | checkout, send, await_head | `worker::opening`, `worker::conversation`, `worker::upload`, [`net::upstream`] | the policy's next action: another endpoint, a backoff, 502, 504 |
//! | classify | `worker::answer` → [`policy::exchange`] | retry elsewhere, or commit to this response |
//! | relay | `worker::relay`; after a 101 `worker::tunnel` | before a byte was passed on: the policy's next action; then cut the connection, never a fake end |
//! | record, checkin | `worker::record`, [`net::pool`] | – |
//!
//! The line takes a request and knows no connection: whose it is, where the rest of it comes from and where its response goes
//! (`worker::inbound`). What a protocol does to get there is before it (`worker::down`). A head is kept as places in its bytes
//! ([`http::kept`]) from one verb to the next, so the line may wait between any two of them and hold nothing that is the worker's; it is
//! encoded when an attempt has a connection. An attempt is a value with a deadline of its own, a connection to an endpoint is a lease, and
//! what was sent of the request on it is counted there (`worker::hop`), so two attempts would share nothing but the request. One at a time is
//! made: who may send what is kept of the body, while another does, is not settled.
//!
//! Decisions are values: [`policy::exchange::Exchange::step`] takes an event and returns the next action, with `now` and `rng` as
//! arguments, so `tests/sim` runs the same code over made-up outages with a virtual clock. A feature is a call at its place in the line;
//! there is no middleware.
//!
//! # What T_max bounds
//!
//! T_max (`route.timeout`) bounds everything up to the response's head: attempts, backoffs, waits. From then on a body is bounded by
//! progress instead (`body_timeout` without a byte, in either direction), because a large download is not a slow service. A tunnel (an upgraded connection)
//! is bounded by `tunnel_timeout` without a byte in both directions, and by a drain. So is a call of gRPC, which may be a stream: its T_max begins
//! with the end of its request, and only what its client allows (`grpc-timeout`) runs from the beginning on ([`policy::deadline`]).
//!
//! Whatever is awaited on behalf of a client before its response (a connection, a head, a receipt, the end of a backoff) is awaited no
//! longer than it is there ([`net::timer::Guard::on_behalf_of`]): a wait that does not watch its client is a defect.
//!
//! # When endpoints fail
//!
//! The rules, and where they are decided. README.md says the same for users; `tests/sim` holds them over a thousand seeds, `tests/drills`
//! with real processes.
//!
//! - A failure before anything was sent is no retry ([`policy::exchange`]): on to the next endpoint that the request has not met, whatever
//!   its method and body, until T_max, every endpoint, or [`limits::FAILOVERS_MAX`]; first to those whom the last one who tried could reach.
//! - Evidence is hard (nobody could be reached) or soft ([`policy::outlier`]). Hard evidence takes out any number, soft evidence at most half
//!   of what is left and never the last of the cluster; what it may not eject is shunned ([`policy::cluster`]).
//! - An ejection is a hint: the order in which a cluster is asked ends with the ejected and those called down, but for the freshly dead
//!   ([`policy::standings`]).
//! - A failing probe is the same fault going on; only a relapse doubles, and proofs in a row end it early ([`policy::outlier`]).
//! - All workers learn together. Where an endpoint stands is one word that they share, the retry budget one account ([`policy::budget`]);
//!   the time of a try follows the route, by what any of them has seen ([`policy::try_time`]).
//! - When nobody is left that serves well, or may be well again because nobody has failed there for a second, a retry is a probe, ten of which
//!   are made a second ([`policy::standings::Standings::claim_retry`]).
//! - A retry is counted and paid when it is made. One that takes the place of an answer is entered before the answer is let go.
//! - Our own shortage is never an endpoint's fault, and no retry budget pays for it. Descriptors are divided before they run out
//!   ([`policy::descriptors`]); what an error of the kernel is about stands in one list ([`net::fault`]), and what is not in it proves nothing.
//! - Nor is it anybody's fault when we stand still (a stopped process, a paused machine): what has arrived meanwhile is taken before time is over
//!   ([`net::timer`]), and where nothing has, nobody is blamed.
//!
//! # Generations
//!
//! A configuration in use is a *generation*. On the control plane it is a [`worker::Shared`]; on each core a `worker::generation`, over that
//! worker's own state, which knows of no configuration (`worker::state`). Ids ([`units`]) are rows of one generation's tables, and never meet
//! another's: a request pins the generation that is in use when its first byte arrives and ends under it; between two requests a connection
//! holds none, only its door (`worker::door`), which knows the one in use. A pin costs a count of this thread's.
//!
//! A reload (`control::supervisor::reload`) has two phases. Everything that can fail comes first: read and check the file, bind, open, have every
//! worker prepare (`control::crew::succession`). Then nothing fails any more: the shared side is committed ([`worker::Shared::commit`]), each
//! worker swaps one pointer between two of its tasks (`worker::succession`), and whoever takes a worker's place begins with it.
//!
//! What goes on has a name, and what has the same name is the same thing: numbers ([`observe::stats`]), where endpoints stand and budgets
//! ([`policy::cluster::Common::succeed`]), buckets and slots ([`policy::admission::Limits`], [`policy::concurrency`]), pools, measured times, doors by
//! address. A cluster of which nothing has changed is the very same object in both generations.
//!
//! Endpoints may have names. The control plane asks for them (`control::names`; when, and what is kept, is [`policy::names`]), and where an
//! answer differs from the last one there is another generation (`control::supervisor::names`): the same rows, the same routes and limits, other
//! clusters only where endpoints have changed ([`worker::Shared::with_endpoints`]). Workers do not prepare for it, since nothing of it can fail.
//!
//! An old generation is freed when the last worker has let go of it; that is seen by its reference count, and by nothing else.
//!
//! # An upgrade
//!
//! The next process is started by this one and given its listening sockets over a unix socket ([`control::upgrade`]), so no queue is ever closed
//! in which somebody waits. When it has everything that it needs, it is told what this one knows of endpoints and limits ([`worker::Estate`]), begins,
//! and says so; only then this one drains, without closing what the other has ([`worker::Command::HandOver`]). Before that, whatever goes wrong
//! ends the next process and nothing else.
//!
//! # The end
//!
//! A drain is announced (`/readyz`, for `drain_delay`), then nothing new is taken, then what is in flight has `drain_timeout`. Shortly
//! before that is over every wait is made to end ([`worker::Command::Cut`]), so that clients are told and the log has them. The admin
//! API stays until the process ends, or a successor asks for its address (`control::admin`, `POST /handover`): one process at a time
//! listens, so that nobody is answered by the one that leaves. Unix sockets are removed by who made them, by device and inode
//! ([`net::socket_file`]).
//!
//! # TLS
//!
//! A [`net::stream::Stream`] is plain, or has a session over it ([`net::tls`]): rustls' own connection types over our blocks. Above it nobody knows
//! which; below it no event loop does. The session is made where it belongs in the line: with a client behind a PROXY header and before
//! `read_head` (`worker::greeting`), with an endpoint at the end of connecting (`worker::opening`), where its failure is one to connect. An end
//! without close_notify is a cut, so a body that ends with its connection is whole only after that; what says whether bytes have arrived or were
//! read ([`net::pool`], [`net::receipt`]) asks for plaintext or for bytes on the wire as it means. Handshakes are bounded twice: so many
//! under way on a worker and of a client, from their first byte on (`worker::handshakes`), so many steps a turn ([`net::tls::handshake`]). Certificates are part
//! of the configuration ([`tls`]), so they change by a reload and never under a session; but whom a listener believes ([`tls::judge`]) counts for
//! who is connected, too. An authority that issues them ([`control`], ACME) is the control plane's affair: what it has issued is a file and a reload.
//!
//! # HTTP/2
//!
//! A client that speaks HTTP/2 (by ALPN, or where a listener allows it by beginning with it) has many requests under way on one connection. The
//! connection's task (`worker::down::h2::mux`) owns the socket and the protocol ([`http::h2::connection`], which is bytes in, events out). Each
//! stream is a lane ([`net::lane`]): a stream socket for whoever serves it, so that routing, retries, relaying, deadlines and back-pressure are the
//! same straight line. It is served by a runner (`worker::down::h2::runner`), a task out of the worker's stock, so a stream costs no allocation in
//! steady state. HPACK decodes into the lines and the table of fields that heads of HTTP/1.1 have ([`http::h2::section`]): one seam, one
//! judgement. What is sent to a stream are frames without an id; the mux cuts them by the client's windows, in turns, or in the
//! order of what the client calls urgent, where it does ([`http::h2::priority`]). A client that makes more work than it brings is told so and sent away
//! ([`http::h2::guard`]).
//!
//! With endpoints it is the same the other way round (`worker::up`): a connection's task, and a lane for each request that has a share of it. On
//! that the line speaks HTTP/1.1, because what it has written once may be sent again to somebody who speaks nothing else; the task makes frames
//! of it ([`http::h2::upward`]) and writes the heads of frames as it expects them ([`http::h2::ask`]). The connection's window is given back as DATA
//! arrives and a stream's when its client has taken it, so that nobody waits for another's client.
//!
//! A WebSocket is an Upgrade to the line, whatever is spoken at either side: an extended CONNECT (RFC 8441) is made into one where it comes in,
//! and of one where it goes out. Only the tunnel (`worker::tunnel`) knows how bytes go into each side.
//!
//! # gRPC
//!
//! A call is a request like any other ([`http::grpc`]). What differs stands where it belongs in the line: its client's deadline where the
//! attempts begin ([`policy::deadline`]); what is left of that in `encode`; an outcome in the head in `classify`, and behind the body in `relay`
//! ([`policy::verdict`] says what a code means); and the form of the gateway's own errors in [`http::reply`]. Names of methods are a client's words, so the
//! numbers learn them from services ([`observe::stats`]).
//!
//! # Who sends a request
//!
//! Consumers, ways to be recognised and rules are part of the configuration ([`config::Consumers`], [`config::Auth`], [`config::Access`]), with the
//! files that they stand in, so they change by a reload and never under a request. A key is looked for by a hash and compared in constant time; a
//! certificate that the listener has believed, by what its session keeps of it; a token's signature is verified once a worker, and then known by its
//! hash until it is over (`worker::believed`). A password is verified by threads that are no worker's (`worker::verifier`), whose queue goes round
//! the clients ([`policy::fair_queue`]), while its request waits with its head (`worker::waiting`), and then known for some minutes
//! (`worker::logins`). A signature of the request is verified each time ([`policy::signature`]), its nonce taken once ([`policy::replay`]), and its body held until that
//! is what was signed (`worker::signed`). Where somebody else decides, its endpoints are asked as any others are (`worker::decision`), and the request waits in the same
//! way. What the gateway says about a consumer it says alone: headers in which it does are taken off every request before anything is added
//! ([`config::HeaderRules::strip`]), and so are credentials, unless they are asked for. A secret is kept as what it is compared by, and no `Debug`
//! shows it.
//!
//! # What is done with traffic beyond passing it on
//!
//! Each is a call at its place in the line, and nothing where a route does not ask for it. A session's cookie names an endpoint by a keyed hash
//! ([`policy::sticky`]), which `pick` asks first while it is available. A side of a split follows from a ticket ([`policy::split`]), so it needs no memory, and
//! a request whose side has nobody left goes on to another one as it would to another endpoint (`worker::side`). Faults are drawn in the policy
//! ([`policy::fault`]) and waited for before the first pick, as a body is that is to be there whole (`worker::upload`). A copy of a request (`worker::mirror`) is a
//! task with attempts of its own, begun when the endpoint has got all of the request; nobody waits for it. Whether a response is compressed follows from heads
//! ([`http::coding`]); it is done by the relay, so much a turn for all of a worker (`worker::compression`).
//!
//! # Why nothing is shared
//!
//! There is no lock on a request's path, and no cache line that two cores write per request. Verb by verb, what a worker writes and what
//! it reads of others:
//!
//! | verb | writes | reads of what is shared |
//! |---|---|---|
//! | `read_head` | a block, the head's table ([`http::kept::KeptHead`]): this thread's | the listener's configuration, which nobody writes |
//! | `route` | this worker's [`policy::router::RouterCache`] | the compiled routes, which nobody writes |
//! | `identify`, `authorize` | the tokens and passwords that this worker believes; a password that it does not know goes through the queue of those who verify | consumers, keys and rules, which nobody writes |
//! | `admit` | a lease, local slots: this worker's; now and then one of the lines below | – |
//! | `pick` | the cluster as this worker sees it, its own random state ([`policy::cluster`]) | the version of the standings, which is written when an endpoint's standing changes |
//! | `checkout`, `checkin` | this worker's pool ([`net::pool`]) | – |
//! | `send`, `await_head`, `relay` | blocks, this worker's event loop, its deadlines ([`net::timer`]) | – |
//! | `classify` | the exchange and the cluster, both this worker's; after a failure the endpoint's line | the count of failures in a row, which is written on a failure and on the first success after it |
//! | `record` | this worker's counters, its usage table and its log ring's head: loads and stores of one writer, on lines that no other worker's stand on ([`observe::stats`], [`observe::usage`], [`observe::access_log`]) | the log ring's tail, which the log's thread moves once a batch |
//!
//! What workers do share, each bounded and rare:
//!
//! - a rate limit per route: a compare-and-swap on the limit's own cache line when its lease is used up, at most every token below some
//!   hundred requests a second, else every few milliseconds ([`policy::token_bucket`]);
//! - a limit per client or header: one line of a table that belongs to that client ([`policy::key_table`]); two cores write it only when
//!   one client has connections on both;
//! - `max_concurrent`, `max_requests`, `max_connections`: slots, taken in batches where the limit allows ([`policy::concurrency`]);
//! - where an endpoint stands, and its failures: words that are written when something fails or comes back ([`policy::standings`]);
//! - a quota per hour, day or month: a compare-and-swap a request on the line of its client, or of all;
//! - a rate that several hosts share: three words of the line of its client a request ([`policy::far`]); a thread beside the control thread tells Redis,
//!   and nobody waits for that;
//! - a retry budget: what requests deposit is handed in every few milliseconds, a retry withdraws with one compare-and-swap
//!   ([`policy::budget`]);
//! - `max_connections_per_client`: one word of a table when a connection begins and when it ends ([`policy::client_slots`]);
//! - a nonce of a signed request: a compare-and-swap on one of the eight lines of a table that its hash names, which all of them are read for ([`policy::replay`]);
//! - passwords that are to be verified: a queue with a lock, which is held for moments, and waited for only where its holder has lost its core (`worker::verifier`).
//!
//! # The event loop
//!
//! [`net::driver`] is a ladder, and [`net::stream`] the one socket over it: what was received belongs to the socket, so a wait may be
//! dropped, and whoever waits needs no buffer. Two event loops are our own, with the same tasks (`net::tasks`) and timers: a turn runs every task
//! that was woken, then makes one system call, which also waits. Time is read once a turn.
//!
//! On our ring (`net::ring`, Linux 6.1) that call hands everything to the kernel that the tasks have submitted. A busy socket is *listened
//! to*: one multishot receive stays in the kernel, which chooses a buffer when bytes are there (it has twice as many as turns take); bulk is
//! *asked* for, into a block that grows to 256 KiB. Small answers are *posted*: nobody waits for a send that the kernel takes at once. On our
//! epoll (`net::epoll`), where io_uring is forbidden, the call tells what has become possible, and a receive or a send is made where it
//! arises, once: again only after the kernel has said so. Between the two, on kernels that have io_uring and not what our ring needs, runs
//! monoio's ring, behind sockets that behave like ours (`net::guest`). Nothing above [`net`] knows which one runs.
//!
//! All workers take the best step that each of them can have; only a successor may go lower, rather than not run (`control::crew`).
//!
//! # Memory and time
//!
//! Idle connections of clients hold no buffer, and neither do connections to endpoints that wait in a pool. A connection that serves
//! holds one or two blocks from the worker's stock; a small response goes on in the block that it came in, with the client's head written
//! over the endpoint's. Deadlines are rows of one lazy wheel per worker, one for each client and each attempt; when one passes, the socket is shut down; only on a connection that
//! is given up is a pending operation dropped ([`net::timer`]). A panic in a connection ends that connection ([`net::guarded`]); a worker
//! that panics elsewhere or stalls is replaced on its core with the same listening sockets (`control::crew`). It finishes what it has beside
//! its successor; each of the two writes numbers of its own ([`observe::stats`]).

pub mod limits;
pub mod units;

pub mod error;

pub mod tls;

pub mod config;

pub mod policy;

pub mod http;

pub mod net;

pub mod worker;

pub mod observe;

pub mod control;

pub mod demo;
