"""What a tree in a bucket or on HDFS asks its server for: requests and bytes, alone and with other committers."""
