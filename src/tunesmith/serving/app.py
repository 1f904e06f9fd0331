"""The addresses of a server, and what each answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ..data.rendering.tokens import NoTarget
from ..errors import DataError, Refusal
from ..model.sight import Looked
from . import judged, texts
from .answers import Answers, Asking, check_letters, dialogue, prompts_of, turn
from .door import Door
from .events import Events, json_response, left
from .fault import Fault, bad
from .judged import Keep, keeper
from .loop import Loop, deliver
from .models import Models, Served
from .openapi import document
from .pictures import laid_out, pictures
from .row import Ask
from .settings import Serving
from .shapes import chat_logprobs, chunk, head, text_logprobs, whole_chat, whole_text
from .speech import Speech
from .store import Store
from .wire import Chat, Completion, Embedding, Load, Score, Unload, parsed
from .wire import Said as Feedback

Chunks = AsyncIterator[dict[str, Any]]
T = TypeVar("T")


class Site:
    """One server's answers."""

    def __init__(self, settings: Serving, models: Models, loop: Loop, store: Store | None) -> None:
        self.settings, self.models, self.loop, self.store = settings, models, loop, store
        self.asking = Asking(settings, loop, models.length(), len(models.tokenizer))
        self.rendering = asyncio.Lock()
        """A tokenizer takes one text at a time."""
        self.loading = asyncio.Lock()

    def app(self, key: str) -> Door:
        """The application, behind its door."""
        gets = {
            "/health": self.health,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
            "/v1/models": self.names,
            "/v1/models/{id:path}": self.one,
        }
        routes = [Route(path, self.safely(work), methods=["POST"]) for path, work in self.posts().items()]
        routes += [Route(path, self.safely(work), methods=["GET"]) for path, work in gets.items()]
        made = Starlette(routes=routes, exception_handlers={HTTPException: not_there}, lifespan=self.attached)
        return Door(made, self.settings, key)

    def posts(self) -> dict[str, Callable[[Request], Any]]:
        """What takes a body, by its address."""
        return {
            "/v1/chat/completions": self.chat, "/v1/completions": self.complete, "/v1/embeddings": self.embed,
            "/v1/score": self.score, "/v1/load_lora_adapter": self.load, "/v1/unload_lora_adapter": self.unload,
            "/v1/feedback": self.feedback,
        }  # fmt: skip

    @asynccontextmanager
    async def attached(self, _: Any) -> AsyncIterator[None]:
        """Within it what the model says comes into this event loop, all of a pass at once."""
        events = asyncio.get_running_loop()

        def post(out: list[Any]) -> None:
            with suppress(RuntimeError):  # the loop of events has ended, and nobody hears
                events.call_soon_threadsafe(deliver, out)

        self.loop.post = post
        yield

    def safely(self, work: Callable[[Request], Any]):
        """An address that answers faults in OpenAI's shape."""

        async def answer(request: Request) -> Response:
            try:
                return await work(request)
            except Fault as fault:
                return json_response(fault.body, fault.status, dict(fault.headers))

        return answer

    # --- what may be asked --------------------------------------------------------------------------------------------

    async def health(self, _: Request) -> Response:
        well = self.loop.is_alive() and not self.loop.draining
        return json_response({"status": "ok" if well else "draining"}, 200 if well else 503)

    async def metrics(self, _: Request) -> Response:
        loop = self.loop
        text = loop.metrics.text(loop.busy(), len(loop.waiting), len(self.models.served))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, _: Request) -> Response:
        return json_response(document())

    async def names(self, _: Request) -> Response:
        data = [self.models.entry(served) for served in list(self.models.served.values())]
        return json_response({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        return json_response(self.models.entry(self.models.find(request.path_params["id"])))

    # --- writing ------------------------------------------------------------------------------------------------------

    def writer(self, name: str) -> Served:
        served = self.models.find(name)
        if served.tuned:
            raise bad(f"the model '{name}' scores texts and writes none; ask /v1/score", "model")
        return served

    async def chat(self, request: Request) -> Response:
        said = parsed(Chat, await request.body())
        served = self.writer(said.model)
        if said.stream_options and not said.stream:
            raise bad("'stream_options': is for streams; set stream=true", "stream_options")
        if said.top_logprobs is not None and not said.logprobs:
            raise bad("'top_logprobs': needs logprobs=true", "top_logprobs")
        speech = Speech(said, served.renderer, self.models.tokenizer)
        turns, prompt = await self.asked(said, served, speech)
        most = said.max_completion_tokens or said.max_tokens
        logprobs = (said.top_logprobs or 0) if said.logprobs else None
        ask = self.asking.ask(said, served, prompt.ids, most, logprobs)
        ask.seen = prompt.seen
        ask.grammar = await asyncio.to_thread(speech.grammar, self.models.words, self.models.ends)
        answers = Answers(self.loop, [ask])
        asked = {"messages": turns, "tools": said.tools or ()}
        store = None if ask.seen else self.store  # feedback is rows of text, and images would be left out of them
        keep = keeper(self.settings, store, (said, served), [asked] * ask.n, answers)
        if said.stream:
            usage = bool(said.stream_options and said.stream_options.include_usage)
            return self.stream(request, answers, self.chat_chunks(said, answers, speech, keep), usage)
        await self.wait(request, answers)
        spoken = [speech.message(text, answers.finish[n]) for n, text in enumerate(answers.texts)]
        await keep(spoken)
        return json_response(whole_chat(answers, said.model, spoken, bool(said.logprobs)))

    async def asked(self, said: Chat, served: Served, speech: Speech) -> tuple[list[dict[str, Any]], Looked]:
        """The turns of a dialogue without its images, and what the model is given. Raises Fault."""
        sight, shown = self.models.sight, speech.shown
        if sight is None:
            turns = [turn(one, n) for n, one in enumerate(said.messages)]
            messages = dialogue(turns, speech.tools)
            ids = await self.encode(lambda: served.renderer.prompt(messages, shown), "messages")
            return turns, Looked(ids)
        turns, parts, addresses = laid_out(said.messages, self.settings)
        messages, images = dialogue(turns, speech.tools), await pictures(addresses, self.settings)

        def looked() -> Looked:
            told = zip(served.renderer.told(messages), parts, strict=True)
            laid = [{**served.renderer.writer.turn(one), "content": part} for one, part in told]
            return sight.prompt(laid, shown, images)

        return turns, await self.encode(looked, "messages")

    async def complete(self, request: Request) -> Response:
        said = parsed(Completion, await request.body())
        served = self.writer(said.model)
        prompts = prompts_of(said)
        if len(prompts) > self.settings.queue + 1:
            raise bad(f"'prompt': at most {self.settings.queue + 1} at once here (got {len(prompts)})", "prompt")
        if said.echo and said.logprobs is not None:
            raise bad("'echo': logprobs of a prompt are not told; leave one of the two out", "echo")
        asks, before = [], []
        for prompt in prompts:
            ids = await self.ids(served, prompt, "prompt")
            asks.append(self.asking.ask(said, served, ids, said.max_tokens or 16, said.logprobs))
            shown = prompt if isinstance(prompt, str) else served.renderer.tokenizer.decode(ids)
            before += [shown] * asks[-1].n
        answers = Answers(self.loop, asks)
        keep = keeper(self.settings, self.store, (said, served), [{"prompt": shown} for shown in before], answers)
        before = before if said.echo else [""] * len(before)
        if said.stream:
            usage = bool(said.stream_options and said.stream_options.include_usage)
            return self.stream(request, answers, self.text_chunks(said, answers, before, keep), usage)
        await self.wait(request, answers)
        await keep([({"content": text}, None) for text in answers.texts])
        return json_response(whole_text(answers, said.model, before, said.logprobs is not None))

    async def ids(self, served: Served, prompt: str | list[int], where: str) -> list[int]:
        """The tokens of a text, or those that are given."""
        if not isinstance(prompt, str):
            if any(token >= self.asking.words for token in prompt):
                raise bad(f"'{where}': holds a number that is no token of this model", where)
            return prompt
        return await self.encode(lambda: served.renderer.text_begun(prompt), where, prompt)

    async def encode(self, work: Callable[[], T], where: str, text: str = "") -> T:
        """Tokens, made aside so that others are answered meanwhile. Raises Fault where the template refuses."""
        check_letters(text, where)
        async with self.rendering:
            try:
                return await asyncio.to_thread(work)
            except (DataError, NoTarget) as error:
                raise bad(f"'{where}': {error}", where) from None
            except UnicodeEncodeError:
                raise bad(f"'{where}': holds half of a character, for which there is no token", where) from None

    async def wait(self, request: Request, answers: Answers) -> None:
        """Until all is written, or the client has left."""
        watch = asyncio.create_task(left(request, answers))
        try:
            answers.begin()
            async for _ in answers.pieces():
                pass
        finally:
            watch.cancel()

    def stream(self, request: Request, answers: Answers, chunks: Any, usage: bool) -> Response:
        """Server-sent events; where too many wait, that is said first, with a status of its own."""
        answers.begin()
        return Events(request, answers, chunks, usage)

    async def chat_chunks(self, said: Chat, answers: Answers, speech: Speech, keep: Keep) -> Chunks:
        start = head(answers, "chat.completion.chunk", said.model)
        told = bool(said.logprobs)
        spoken = [speech.begin() for _ in answers.texts]
        for n in range(len(answers.texts)):
            yield chunk(start, n, None, delta={"role": "assistant", "content": ""}, logprobs=None)
        async for n, piece in answers.pieces():
            likely = chat_logprobs(piece.likely) if told and piece.likely else None
            deltas = spoken[n].deltas(piece.text, piece.finish is not None)
            for at, delta in enumerate(deltas or ([{"content": ""}] if likely else [])):
                yield chunk(start, n, None, delta=delta, logprobs=likely if at == 0 else None)
            if piece.finish:
                yield chunk(start, n, spoken[n].finish(piece.finish), delta={}, logprobs=None)
        await keep([speech.message(text, answers.finish[n]) for n, text in enumerate(answers.texts)])

    async def text_chunks(self, said: Completion, answers: Answers, before: list[str], keep: Keep) -> Chunks:
        start = head(answers, "text_completion", said.model)
        told, sent = said.logprobs is not None, [0] * len(before)
        for n, text in enumerate(before):
            if text:
                yield chunk(start, n, None, text=text, logprobs=None)
        async for n, piece in answers.pieces():
            yield chunk(
                start, n, piece.finish, text=piece.text, logprobs=text_logprobs(piece.likely, sent[n]) if told else None
            )
            sent[n] += len(piece.text)
        await keep([({"content": text}, None) for text in answers.texts])

    # --- reading ------------------------------------------------------------------------------------------------------

    async def embed(self, request: Request) -> Response:
        said = parsed(Embedding, await request.body())
        served = self.writer(said.model)
        prompts = [await self.ids(served, one, "input") for one in texts.inputs(said)]
        if any(not 0 < len(ids) <= self.asking.length for ids in prompts):
            raise bad(f"'input': each must have 1 to {self.asking.length} tokens", "input", "context_length_exceeded")
        work = lambda: texts.embed(self.models.lane(served.adapter), served.adapter, prompts)  # noqa: E731
        vectors = await self.done(work)
        return json_response(texts.embeddings(said, vectors, sum(map(len, prompts))))

    async def score(self, request: Request) -> Response:
        said = parsed(Score, await request.body())
        served = self.models.find(said.model)
        work = texts.scoring(said, served)
        async with self.rendering:
            return json_response({**await self.done(work), "model": said.model})

    async def done(self, work: Callable[[], Any]) -> Any:
        """Something that the model's thread does between two passes."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.loop.call(work)), self.settings.timeout)
        except DataError as error:
            raise bad(str(error)) from None

    # --- adapters -----------------------------------------------------------------------------------------------------

    async def load(self, request: Request) -> Response:
        said = parsed(Load, await request.body())
        name, path = said.lora_name, said.lora_path
        folder = await asyncio.to_thread(self.models.named, name, path)
        async with self.loading:
            if name in self.models.served:
                raise bad(f"the name '{name}' is taken; unload it first", "lora_name", "name_taken")
            try:
                await self.done(lambda: self.models.load(name, folder))
            except Refusal as error:
                why = self.models.without_paths(str(error), folder, path)
                raise bad(why, "lora_path", "adapter_unusable") from None
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = parsed(Unload, await request.body()).lora_name
        if self.settings.adapter_root is None:
            raise Fault(403, "adapters are not unloaded at run time; start the server with adapter_root=FOLDER")
        served = self.models.find(name)
        if not served.adapter or served.adapter == "soft" or name == self.models.name:
            raise bad(f"'{name}' is what this server was started for, and stays", "lora_name")
        async with self.loading:
            while not await self.done(lambda: self.released(name)):
                await asyncio.sleep(0.05)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    def released(self, name: str) -> bool:
        """Take an adapter out, unless somebody is still answered with it; nobody new is."""
        served = self.models.served.pop(name, None) or self.models.leaving.get(name)
        if served is None:
            return True
        self.models.leaving[name] = served
        asks: list[Ask] = [row.ask for lane in self.loop.lanes for row in lane.rows]
        asks += [*self.loop.waiting, *(self.loop.reading.asks if self.loop.reading else ())]
        if any(ask.model == served.adapter for ask in asks):
            return False
        self.models.unload(self.models.leaving.pop(name))
        return True

    # --- feedback -----------------------------------------------------------------------------------------------------

    async def feedback(self, request: Request) -> Response:
        said = parsed(Feedback, await request.body())
        if self.store is None:
            raise Fault(403, "nothing is kept here; start the server with feedback=FILE.sqlite", code="feedback_off")
        store = self.store
        return json_response(await asyncio.to_thread(judged.keep, store, said))


async def not_there(_: Request, error: Any) -> Response:
    what = {404: "there is no such address", 405: "this address is not asked that way"}
    fault = Fault(error.status_code, what.get(error.status_code, str(error.detail)), code="not_found")
    return json_response(fault.body, error.status_code, dict(error.headers or {}))
