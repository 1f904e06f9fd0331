"""Adapters that come and go while a server answers."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from ..errors import Refusal
from .fault import Fault, bad
from .loop import Loop
from .models import Models, Served
from .row import Ask
from .visit import visiting
from .wire import Load, Unload, parsed


class Shelf:
    """What takes them in, and lets go of them when nobody is answered with them any more."""

    def __init__(self, models: Models, loop: Loop) -> None:
        self.models, self.loop = models, loop
        self.loading = asyncio.Lock()

    async def load(self, request: Request) -> str:
        """Take one in, and say so. Raises Fault."""
        said = parsed(Load, await request.body())
        name, path = said.lora_name, said.lora_path
        folder = await asyncio.to_thread(self.models.named, name, path)
        async with visiting(request, self.loop) as visit, self.loading:
            if name in self.models.served:
                raise bad(f"the name '{name}' is taken; unload it first", "lora_name", "name_taken")
            if name in self.models.leaving:
                why = f"the name '{name}' is taken until all is answered that its adapter was asked; load it then"
                raise bad(why, "lora_name", "name_taken")
            try:
                await visit.done(lambda: self.models.load(name, folder))
            except Refusal as error:
                why = self.models.without_paths(str(error), folder, path)
                raise bad(why, "lora_path", "adapter_unusable") from None
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload(self, request: Request) -> str:
        """Let nobody new ask one, wait until all is answered that it was asked, and let go of it. Raises Fault."""
        name = parsed(Unload, await request.body()).lora_name
        if self.models.settings.adapter_root is None:
            raise Fault(403, "adapters are not unloaded at run time; start the server with adapter_root=FOLDER")
        served = self.models.leaving.get(name) or self.models.find(name)
        if not served.adapter or served.adapter == "soft" or name == self.models.name:
            raise bad(f"'{name}' is what this server was started for, and stays", "lora_name")
        while not await asyncio.wrap_future(self.loop.call(lambda: self.released(name, served))):
            await asyncio.sleep(0.05)  # to the end, whether or not who asked for it still waits
        return f"Success: LoRA adapter '{name}' removed successfully."

    def released(self, name: str, served: Served) -> bool:
        """Take an adapter out, in the model's thread, unless somebody is still answered with it; nobody new is."""
        if self.models.served.get(name) is served:
            self.models.leaving[name] = self.models.served.pop(name)
        if self.models.leaving.get(name) is not served:
            return True
        asks: list[Ask] = [row.ask for lane in self.loop.lanes for row in lane.rows]
        asks += [*self.loop.waiting, *(self.loop.reading.asks if self.loop.reading else ())]
        if any(ask.model == served.adapter for ask in asks):
            return False
        self.models.unload(served)
        del self.models.leaving[name]
        self.loop.lanes = [lane for lane in self.loop.lanes if lane in self.models.lanes.values()]
        return True
