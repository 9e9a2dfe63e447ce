"""One example of each message that headwater's processes exchange, with every field used."""

from __future__ import annotations

from typing import Any

from headwater.contracts.messages import (
    Admit,
    Answered,
    AppRecord,
    Ask,
    CallNote,
    Closed,
    Control,
    Drain,
    Failed,
    Header,
    Intent,
    Limits,
    Reply,
    ReplyTo,
    Result,
    RunEvent,
    RunFailed,
    SchemaRecord,
    ShardTable,
    Spent,
    Start,
    Task,
    Token,
    Usage,
    Wake,
)

_TASK = Task(
    topic="hw.cmd.triage.v1",
    partition=2,
    offset=41,
    key=b"c-17",
    value=b"\xc3\x01\x00\x01\x02\x03\x04\x05\x06\x07\x06abc",
    headers=(Header(name="ce_id", value=b"c-17"), Header(name="empty", value=None)),
)
_RUN = "triage.2.0af7651916cd43dd8448eb211c80319c"
_TO = ReplyTo(topic="hw.inbox.desk.v1", partition=1, run="desk.1.b7ad6b7169203331", number=3)
_USAGE = Usage(model="openai:gpt-5-mini", input_tokens=120, output_tokens=40, usd_nano=1_250_000)
_SPENT = Spent(steps=4, tokens=160, usd_nano=1_250_000)

EXAMPLES: tuple[Any, ...] = (
    Admit(agent="triage", task_id="0af7651916cd43dd", digest=b"\x01\x02", task=_TASK),
    Control(target=_RUN, verb="signal", name="decision", value=b'{"pay": true}', reason="checked"),
    Closed(slot="0af7651916cd43dd", spent=_SPENT),
    Wake(name=("run", _RUN, 7), due_ms=1_700_000_000_000),
    Start(
        run=_RUN,
        task_id="0af7651916cd43dd8448eb211c80319c",
        slot="0af7651916cd43dd",
        task=_TASK,
        limits=Limits(steps=50, tokens=None, usd_nano=250_000_000, wall_ms=60_000, cleanup_steps=5),
        reply_to=_TO,
    ),
    Reply(
        run=_RUN,
        number=3,
        attempt="a1",
        outcome=Failed(error="ToolError", detail="the ledger is away"),
        usage=_USAGE,
        spent=_SPENT,
    ),
    Drain(run=_RUN),
    Ask(
        run=_RUN,
        number=3,
        name="balance",
        arguments=b"\xc3\x01",
        safety="write",
        order_key="card-9",
        not_after_ms=1_700_000_000_000,
        reply_to=_TO,
    ),
    Intent(
        run=_RUN,
        number=3,
        offset=41,
        attempt="a1",
        holder="tools-1",
        begun_ms=1_700_000_000_000,
        until_ms=1_700_000_010_000,
    ),
    Result(
        offset=41,
        reply=Reply(
            run=_RUN, number=3, attempt="a1", outcome=Answered(value=b"\x06abc"), usage=_USAGE
        ),
    ),
    RunEvent(
        run=_RUN,
        task_id="0af7651916cd43dd8448eb211c80319c",
        agent="triage",
        tenant="t1",
        status="completed",
        reason="",
        error="",
        detail="",
        parent=_TO.run,
        calls=(
            CallNote(number=1, kind="model", name="small", state="answered", usage=_USAGE),
            CallNote(number=2, kind="agent", name="fraud", state="asked", child="fraud.1.b7ad"),
        ),
        steps=4,
        tokens=160,
        usd_nano=1_250_000,
        started_ms=1_700_000_000_000,
        at_ms=1_700_000_001_500,
        outcome=b'{"amount": 7}',
        version="1.2",
    ),
    RunFailed(
        run=_RUN,
        task_id="0af7651916cd43dd8448eb211c80319c",
        agent="triage",
        error="BudgetExceeded",
        detail="model small would pass the run's limit of steps",
        steps=50,
        tokens=160,
        usd_nano=1_250_000,
    ),
    Token(run=_RUN, number=3, attempt="1.a1", seq=2, text="Your balance"),
    AppRecord(name="bank", version="1.2", digest="5f"),
    SchemaRecord(name="Claim", schema='{"type": "record", "name": "Claim", "fields": []}'),
    ShardTable(topic="hw.inbox.admission.v1", version=1, partitions=(0, 1, 2, 0)),
    Reply(run=_RUN, number=3, attempt="a2", outcome=Answered(value=b"\x06abc")),
)
