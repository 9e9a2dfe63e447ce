"""The README's agent: a tool, a model, and the ten lines between them.

headwater dev --app examples.answer.app:app        # wants OPENAI_API_KEY
headwater tasks publish answer_question --json '"How much have I got?"' --wait
"""

import headwater

app = headwater.App("bank")
small = app.model("small", "openai:gpt-5-mini")


@app.tool(effect="read")
async def balance(account: str) -> str:
    return f"{account}: 1,250.00"


@app.agent
async def answer_question(ctx: headwater.Context, question: str) -> str:
    return await small(f"{await balance('42')}\n\nAnswer: {question}")
