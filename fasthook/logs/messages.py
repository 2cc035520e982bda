"""Every kind of line that fasthook writes, with an id that never changes, and what it means.

An id is for `journalctl MESSAGE_ID=…` and for whatever watches the journal. A kind that goes takes
its id along; a new one gets one of its own (`systemd-id128 new`).
"""

from typing import Final, NamedTuple


class Message(NamedTuple):
    """One kind."""

    id: str  # 128 bits, hexadecimal
    subject: str
    text: str  # what it means, and what to do; may be empty


#: By the message that the line begins with.
MESSAGES: Final[dict[str, Message]] = {
    "starting": Message(
        "65244b40c6464053aae44ddbf1579374",
        "The service begins",
        "Configuration and handlers are good. `listening` follows.",
    ),
    "listening": Message(
        "3ecef9174c5142c7b8be36c5dbd012b5",
        "The service takes requests",
        "Addresses are in FASTHOOK_ADDRESSES.",
    ),
    "draining": Message(
        "7ce0927648c44cd6bde8727fd2811a54",
        "The service ends what is under way",
        "No new connections; requests and attempts under way may end.",
    ),
    "stopped": Message(
        "c776430c0df741478c30b3fe0c17eb1f",
        "The service has stopped",
        "FASTHOOK_EVENTS_LOST is above zero only with durability = none.",
    ),
    "killed": Message(
        "84981a178ce04fbc909ac28c7e3748f2",
        "The service was ended by a second signal",
        "What was under way is made again after the next start.",
    ),
    "left behind": Message(
        "bbaa1939ea7f4dcb9001d125e40b5f76",
        "A handler did not end with the service",
        "It ignores its cancellation; the process was ended around it.",
    ),
    "check": Message(
        "3ad701b3898544f0a094c9dd533e7678",
        "The configuration has a weakness",
        "FASTHOOK_WARNING says which; `fasthook check` shows it, too.",
    ),
    "worker lost": Message(
        "e02eba9ad3ba42b1ac0da02f6c117dca",
        "A worker process died",
        "Another is started; what it had in hand is taken over and run again.",
    ),
    "worker stalled": Message(
        "783c2c28a3264140b94f89d3564d20d4",
        "A worker process makes no progress",
        "Its loop or its spool stands still. systemd's watchdog ends the service if it goes on.",
    ),
    "reloaded": Message(
        "3b2354d2b59346ba956d94cab6023205",
        "The configuration was loaded again",
        "New workers serve with it.",
    ),
    "not reloaded": Message(
        "1069cc67f8aa48acafcb5c7feb8fbf3e",
        "The new configuration can't be used",
        "FASTHOOK_REASON says why. All stays as it was.",
    ),
    "metrics of one worker alone": Message(
        "a4074eba28f94889839b904a8b52190b",
        "The figures of the other workers could not be had",
        "",
    ),
    "journal taken over": Message(
        "af9b85f10cfc49cc8af0a9af11b08f85",
        "A worker took over the journal of one that is gone",
        "Nothing is lost.",
    ),
    "outcomes not written": Message(
        "eacccaf6922a4f70804d2b0613854c04",
        "Outcomes of attempts could not be written",
        "What was done may run once more.",
    ),
    "secrets not read": Message(
        "d472dd7789bb417790d939cc05778d9a",
        "Secrets that were handed over could not be read",
        "Those that were in use stay in use.",
    ),
    "accepted": Message(
        "73bb1530415842f5ab9e8f0c7d4d3d9a",
        "A genuine event was accepted",
        "It is on disk as `durability` says, and was answered 2xx.",
    ),
    "paused": Message(
        "c617a6765b074934be2511cd0435ecfc",
        "An endpoint or a handler is paused",
        "Its events are accepted, and wait on disk until `fasthook resume`.",
    ),
    "resumed": Message(
        "38cabcdbe6324d099d017c077fe5efc3",
        "An endpoint or a handler goes on",
        "What waited on disk runs, oldest first.",
    ),
    "pauses not read": Message(
        "e8766a387ecb43f7afdd7a5e983472fc",
        "What is paused could not be read",
        "All stays as it was. FASTHOOK_REASON says why.",
    ),
    "breaker open": Message(
        "777922fa4c154783b310b8316d7c8ecd",
        "A handler failed so often in a row that it is left alone for a while",
        "Its events wait on disk. After FASTHOOK_PAUSE_S seconds one of them is tried.",
    ),
    "breaker closed": Message(
        "9bc367189b904c8fab49fb281e47bb63",
        "A handler that failed in a row works again",
        "What waited on disk runs.",
    ),
    "superseded": Message(
        "ae6bb94b15fa4a3c8d23d0e07dcd74d1",
        "A newer event of the same key runs in the place of this one",
        "As `coalesce_by` and `within` say. FASTHOOK_BY is the name of the newer one.",
    ),
    "duplicate": Message(
        "0f184fea6a4647a5b20b255cbc5ae5b0",
        "An event came again",
        "It is known by what was signed, was answered like the first, and is not run.",
    ),
    "ignored": Message(
        "8091c7bf4bac414d8980041bcc38740b",
        "A genuine event was set aside",
        "Its type is not among the endpoint's `events`, or no handler wants it.",
    ),
    "handshake": Message(
        "61814e7ee2e045e58a9743ac1fc67b10",
        "A handshake was answered",
        "The sender tests or proves an endpoint; no handler sees it.",
    ),
    "rejected": Message(
        "ccdda744ca554766bc310665c73b3088",
        "A request was refused",
        "FASTHOOK_REASON has the reason in full, which the sender is not told.\n"
        "`fasthook rejects` lists refused requests; `fasthook explain --reject ID` finds out\n"
        "why one is not genuine.",
    ),
    "would be refused": Message(
        "85eb429ed74f43b5a0fb34c9c66d75a6",
        "A request is not genuine, and was accepted",
        "The endpoint has mode = observe. With mode = enforce it would be refused.",
    ),
    "repeated": Message(
        "6705b074fc7c473597b3476f1d9f85ee",
        "A line came too often to be said each time",
        "FASTHOOK_COUNT lines of the kind FASTHOOK_WHAT with this cause were left out, of\n"
        "FASTHOOK_CLIENTS clients. Many refused requests of one client: consider `allow`.",
    ),
    "event": Message(
        "651fb952e3074633a7ddfca787021120",
        "An event, shown by the handler `log`",
        "",
    ),
    "output": Message(
        "ce32e960023e42ef956bd6d8148b935c",
        "A line that a command of the handler `exec` wrote",
        "",
    ),
    "output cut": Message(
        "0977654914684d31bcf517be4fc9a354",
        "A command of the handler `exec` wrote too much",
        "The rest was thrown away; the attempt goes on.",
    ),
    "done": Message(
        "002be9d55a6d4ba993f2928a1ad77d9c",
        "A handler has done its work for an event",
        "",
    ),
    "already done": Message(
        "00a940c043e54f198ab0373cfcdfb0a6",
        "A handler has done an event before",
        "Its `event.once` found that in the handler's database: the process died before it could\n"
        "record it, the event was replayed, or its sender sent it again after `retention`.",
    ),
    "retry": Message(
        "db00e84e1588408fab774a9c4251facd",
        "An attempt failed, and another follows",
        "FASTHOOK_REASON has the error, FASTHOOK_RETRY_IN_S when.",
    ),
    "dead": Message(
        "99830268a30a427d9aaac30b8c3ba938",
        "An event became a dead letter",
        "No attempt is left, or the handler discarded it. `fasthook dead` lists dead letters,\n"
        "`fasthook replay` runs them once more.",
    ),
    "worker died in an attempt": Message(
        "cb1d2da6ed894de0a76a7c426265de26",
        "The process died in an attempt of a handler",
        "The event runs again; after three such deaths it becomes a dead letter.",
    ),
    "timeout ignored": Message(
        "327009c19ebc4ccaacb83c7cb3734537",
        "A handler goes on after its timeout",
        "It can't be stopped from outside, and occupies one of the handler's places until it ends.",
    ),
    "loop held": Message(
        "5f2ae1cc397f418b8e27ea218c1c10af",
        "A handler held the event loop",
        "Nothing was received meanwhile. Work that takes the CPU belongs into `runs_in = process`.",
    ),
    "internal error": Message(
        "101fb6027d7d4be6901736ecc16584d8",
        "An error of fasthook's own",
        "The traceback is in FASTHOOK_TRACEBACK. Please report it.",
    ),
    "events wait on disk": Message(
        "33d45d69b9484161b862b79732e97024",
        "Events of an earlier run wait",
        "They are read back as there is room, unless `dispatch.hold` is set.",
    ),
    "spool refuses": Message(
        "8e661a62cf0e49fc98c4367d33673480",
        "The spool can't store events",
        "Senders are answered 503 until it can. Look at space and health of the disk.",
    ),
    "spool works again": Message(
        "f3bb9eaed0384033bf7ef4f51189dacd",
        "The spool stores events again",
        "",
    ),
    "spool in memory": Message(
        "3d21f0eb79c14d24be5d20998bde4717",
        "The spool is on a file system in memory",
        "What is accepted does not survive a restart of the machine. Set `spool.path`.",
    ),
    "torn tail cut": Message(
        "318c75a442604d75814b5579da26d35c",
        "The journal's last record was not whole",
        "The process or the machine ended while it was written; it was answered to nobody.",
    ),
    "damaged bytes in the journal": Message(
        "730aaef38b734687b30a4bbfd06c9f3d",
        "Bytes of the journal are damaged",
        "The records around them are whole. `fasthook spool verify` says what is lost.",
    ),
    "damaged record": Message(
        "7e9db93c24d444ea8959bc44f907b0ba",
        "A record of the journal is damaged",
        "It is set apart and never run. `fasthook spool verify` says more.",
    ),
    "index damaged": Message(
        "dca513fdfd71441da104cf7065905334",
        "The index is damaged",
        "It is a view of the journal alone: the next start makes it again, and loses nothing.",
    ),
    "index damaged, so it is made again from the journal": Message(
        "87c0f21f91fd4757831f90441c1799d8",
        "The index is damaged",
        "It is a view of the journal alone, so that nothing is lost.",
    ),
    "index made again": Message(
        "840cddb5eb51491eae45c887f688af87",
        "The index was made again from the journal",
        "Nothing is lost.",
    ),
    "index not written": Message(
        "78f85ec4a01344aa8c04738c5b1b0c0f",
        "The index could not be written",
        "It follows later; what was accepted stands in the journal.",
    ),
    "crashes not stored": Message(
        "363ebe327c9d4e648887a3c09d83b55f",
        "Deaths in attempts could not be counted",
        "An event that kills the process may run once more than it should.",
    ),
    "claims not made": Message(
        "b83f2a03c704429084f6c6a490c07d9a",
        "A worker can't yet tell others what it stores",
        "FASTHOOK_REASON says why. It is tried again; until then no other worker begins.",
    ),
    "claims not confirmed": Message(
        "a4d7948b2e5646529749ba839907b7c3",
        "It could not be noted that events are stored",
        "Other workers that get the same ask again, until the index has them.",
    ),
    "refused requests not kept": Message(
        "dc03e7e180474df6a62d1bffbdac1214",
        "Refused requests could not be kept for `fasthook rejects`",
        "",
    ),
    "not erased: no record is there": Message(
        "1aac6b5bd42f4870a19f58ffbec57dd2",
        "An event that was to be forgotten is not there",
        "",
    ),
    "pairing": Message(
        "b1ea91ad7d0444a6930ad9601f5b2ecb",
        "An endpoint waits for a secret that its sender hands over",
        "",
    ),
    "paired": Message(
        "4881c6580b0040f58166452eb82d2139",
        "A secret was handed over and is in use",
        "If you did not wait for it, take it out: `fasthook pair ENDPOINT --forget NAME`.",
    ),
    "pairing ended": Message(
        "5e58aed58a7446a3831753709d2ac76a",
        "An endpoint waits for no secret any more",
        "",
    ),
    "unpaired": Message(
        "e5f1569f2b6846d5b78d572c3ef74e78",
        "Secrets that were handed over were taken out",
        "",
    ),
    "key fetched": Message(
        "3a91a21556ad40b990e3e715b5944de5",
        "A sender's key was fetched",
        "From FASTHOOK_URL, for FASTHOOK_FOR_S seconds; it is fetched again before that is over.",
    ),
    "key not fetched": Message(
        "5a0b71f5434a4d07a9ec1f3e34d72527",
        "A sender's key can't be had",
        "FASTHOOK_REASON says why. Requests that need it are answered 503, and the sender comes\n"
        "again. "
        "Can this machine reach FASTHOOK_URL, and trust its certificate? See `[keys]`.",
    ),
    "confirmed": Message(
        "c8e978f722144be0a99a5735cf064440",
        "A sender's question was answered by a visit",
        "It asked for a URL to be visited, such as SNS for each subscription.",
    ),
    "the sender sends no more": Message(
        "04b9f729f65c465f9617a6767b4f957b",
        "A sender has ended a subscription",
        "It was asked to, or believes so: FASTHOOK_ENDPOINT gets no more events from it.",
    ),
    "unusual rejects": Message(
        "888aae2b2786497f9669e38fa746973e",
        "Far more refused requests than usual",
        "FASTHOOK_ENDPOINT has which endpoint (empty: none was found), FASTHOOK_CLIENT whose they\n"
        "are, if mostly of one. `fasthook rejects` lists them.",
    ),
    "rejects as usual": Message(
        "fb7510d0c2b84b768a440938f4afe624",
        "Refused requests are as many as usual again",
        "",
    ),
    "unusual volume": Message(
        "bd4ab7f3d58e4097a25183ae1515a573",
        "Far more events than usual",
        "FASTHOOK_SEEN were accepted in FASTHOOK_OVER_S seconds; FASTHOOK_USUAL are usual.",
    ),
    "volume as usual": Message(
        "6fa9fb6bf66a4c828b5c54ce94e5c73a",
        "Events are as many as usual again",
        "",
    ),
    "new error": Message(
        "b1320f23c8fd4a0fa75070159250b8d3",
        "An error of a kind that was never seen at this endpoint",
        "FASTHOOK_REASON says which: a reason to refuse, or what a handler raised.",
    ),
    "new error over": Message(
        "e66cb9e091c44260b624734f9173a24d",
        "An hour has passed without the new error",
        "",
    ),
    "silence": Message(
        "15a8c23f42654d9ab65097ff2975bc2b",
        "An endpoint gets no events",
        "Nothing came for longer than is usual there, or than its `expect_every`. Does its sender\n"
        "still run, and send to here?",
    ),
    "silence over": Message(
        "39a08b1f8dab4dffb944ec0b8f06da48",
        "An endpoint gets events again",
        "",
    ),
    "payloads changed": Message(
        "6f76104e74f547e7b6a381e64cdf7608",
        "The shape of an endpoint's payloads has changed",
        "FASTHOOK_CHANGE says how, FASTHOOK_WHERE at which field, FASTHOOK_EVENT names the first\n"
        "event that has it. Do its handlers cope with that? `fasthook drift` lists all changes.",
    ),
    "alerts learn anew": Message(
        "cbe8675a7e5a4e789a4a5ccebd09b337",
        "What was learned of the usual could not be read",
        "FASTHOOK_REASON says why. Alerts that need it follow after `alerts.learning`.",
    ),
    "alerts not kept": Message(
        "3260e3b3739b4923b1fa6193a3b06c7b",
        "What was learned of the usual could not be written",
        "It is tried again; a restart before that goes on from an earlier state.",
    ),
    "log lines dropped": Message(
        "3ce8607d282b413fa311867de8400e64",
        "Lines of the log found no room",
        "FASTHOOK_COUNT lines were not written: the journal or standard error is slow.\n"
        "`log.attempts = false` leaves out a line for each event that was handled,\n"
        "and `log.requests = false` one for each request.",
    ),
    "journal not reached": Message(
        "e5a83e2ef0f44e82b0b2422451f09888",
        "The journal takes no lines",
        "They go to standard error meanwhile.",
    ),
    "line not written": Message(
        "b6286e913d974cde9b277c298259444c",
        "A line of the log could not be made",
        "",
    ),
}


def catalog() -> str:
    """The entries for `journalctl --catalog`, of a file in /usr/lib/systemd/catalog.

    https://systemd.io/CATALOG/
    """
    entries = []
    for name, (number, subject, text) in MESSAGES.items():
        what = f"{text}\n\n" if text else ""
        entries.append(
            f"-- {number}\nSubject: {subject}\nDefined-By: fasthook\n\n"
            f"{what}The line begins with: {name}\n"
        )
    return "\n".join(entries)
