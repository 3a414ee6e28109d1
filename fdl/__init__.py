"""The declarations: one FDL file per twin, and the code that understands them.

Document (`read_file`) -> chain (`draw`) -> plan -> apply; each stands alone, and only the last one needs a cluster.
"""
