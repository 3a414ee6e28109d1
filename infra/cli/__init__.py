"""`dioscar`: the command line.

Exit statuses: 0 done; 1 something failed (a job, a test, a refused service); 2 the command was misspelt or names a file
that is not there; 65 the input is wrong (an FDL file, a job's file); 66 there is no such object, service, job or
cluster; 69 the cluster does not answer; 77 it refuses the credentials; 130 interrupted.
"""
