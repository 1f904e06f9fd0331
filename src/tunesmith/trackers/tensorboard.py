"""TensorBoard's event files."""

from __future__ import annotations

import time

from .base import About, Figures, Tracker, tracker


@tracker("tensorboard")
class TensorBoard(Tracker):
    """Event files under tensorboard in the run's folder; look at them with `tensorboard --logdir runs`."""

    def open(self, about: About) -> Events:
        return Events(about)


class Events:
    """Scalars by step, and the recipe as a text."""

    def __init__(self, about: About) -> None:
        # protobuf makes these classes as they are imported
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = Event, Summary
        folder = about.folder / "tensorboard"
        known = any(folder.glob("*tfevents*"))
        self.writer = EventFileWriter(str(folder))
        if not known:
            self.recipe(about)

    def recipe(self, about: About) -> None:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto  # pyright: ignore[reportAttributeAccessIssue]

        text = "\n".join(f"    {name}: {value}" for name, value in about.settings.items())
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self.add(0, [self.summary.Value(tag="recipe/text_summary", metadata=kind, tensor=tensor)])

    def add(self, step: int, values: list) -> None:
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=self.summary(value=values)))

    def log(self, step: int, figures: Figures) -> None:
        self.add(step, [self.summary.Value(tag=name, simple_value=value) for name, value in figures.items()])
        self.writer.flush()

    def close(self, ending: str) -> None:
        self.writer.close()
