"""Each recipe: generated into an empty folder, installed, run, and killed between every two steps."""
