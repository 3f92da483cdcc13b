"""The search that is learned from recorded runs: portfolio, cost model, freeze-thaw searcher and scheduler."""
