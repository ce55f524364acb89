"""What a run shows on the terminal: Lightning's bar and summary, without numbers that say nothing here."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichModelSummary, RichProgressBar

from zoo.text import human_count

__all__ = ["Bar", "Summary"]


class Bar(RichProgressBar):
    """Lightning's bar without the version of the run's folder, which is no metric."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics beside the bar."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown


class Summary(RichModelSummary):
    """Lightning's table of layers, without operations where none were counted."""

    @staticmethod
    def summarize(  # type: ignore[override]
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int = 0,
        **options: Any,
    ) -> None:
        """Print the table and the number of parameters.

        Args:
            summary_data: columns by name.
            total_parameters: of the module.
            trainable_parameters: of these.
            model_size: in MB.
            total_training_modes: layers in training and in evaluation mode.
            total_flops: operations of the example input; 0 where there is none.
            options: of the table.
        """
        from rich import get_console
        from rich.table import Table

        shown = [column for column in summary_data if total_flops or column[0] != "FLOPs"]
        table = Table(header_style=options.get("header_style", "bold magenta"))
        for name, _ in shown:
            table.add_column(name, justify="right" if name in ("Params", "FLOPs") else "left")
        for row in zip(*(values for _, values in shown), strict=True):
            table.add_row(*row)
        console = get_console()
        console.print(table)
        counts = f"{human_count(trainable_parameters)} of {human_count(total_parameters)} parameters are trained"
        resting = total_training_modes.get("eval", 0)
        modes = f", {resting} modules in evaluation mode" if resting else ""
        console.print(f"{counts}, {model_size:.3g} MB{modes}")
