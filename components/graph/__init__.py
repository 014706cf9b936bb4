"""The item graph: relations from behaviour and catalogue, held as a DGL heterograph."""
