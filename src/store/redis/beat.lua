-- Tells all servers that the channel is alive, and up to which version they should have heard.
begin()
redis.call('PUBLISH', channel, head() .. ' 0\n')
return head()
