-- All that can happen to a job. One call is one step, and nothing comes between its commands: a job is always in one
-- of the places `ready`, `delayed`, `leases` and `done`.
--
-- A script that fails half-way (the server's memory is full) is not rolled back. So each step writes the new place
-- before it clears the old one: then a job is in two places and may be delivered twice, but it is never in none.
--
-- ARGV[1] is the step, the others are its arguments. Times are the server's, in milliseconds.

-- ready    list    ids, the next one first
-- delayed  zset    id -> when it is due
-- leases   zset    id -> when the lease ends
-- holders  hash    id -> who has the lease
-- jobs     hash    id -> the job, as JSON
-- facts    hash    '<what>:<id>' -> a number, and '<what>' -> the sum over all jobs
-- done     hash    id -> the receipt, as JSON
local ready, delayed, leases, holders, jobs, facts, done = unpack(KEYS)

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function count(what, id)
  redis.call('HINCRBY', facts, what, 1)
  redis.call('HINCRBY', facts, what .. ':' .. id, 1)
end

local function holds(id, holder)
  return redis.call('HGET', holders, id) == holder
end

local function clear_lease(id)
  redis.call('ZREM', leases, id)
  redis.call('HDEL', holders, id)
end

local function due(zset)
  return redis.call('ZRANGE', zset, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, 100)
end

local steps = {}

-- Answers 1, or 0 where the id is known.
function steps.push(id, job)
  if redis.call('HEXISTS', jobs, id) == 1 then
    return 0
  end
  redis.call('HSET', facts, 'pushed_at_ms:' .. id, now_ms)
  redis.call('RPUSH', ready, id)
  redis.call('HSET', jobs, id, job)
  return 1
end

-- Answers {job, waited_ms, failed, 1 where the lease before this one ended by itself}, or nil where nothing is due.
function steps.take(holder, lease_ms)
  for _, id in ipairs(due(delayed)) do
    redis.call('RPUSH', ready, id)
    redis.call('ZREM', delayed, id)
  end
  for _, id in ipairs(due(leases)) do
    -- To the front: it has waited already.
    redis.call('LPUSH', ready, id)
    clear_lease(id)
    count('redelivered', id)
    redis.call('HSET', facts, 'lost:' .. id, 1)
  end
  local id = redis.call('LINDEX', ready, 0)
  if not id then
    return nil
  end
  redis.call('ZADD', leases, now_ms + lease_ms, id)
  redis.call('HSET', holders, id, holder)
  redis.call('LPOP', ready)
  local known = redis.call('HMGET', facts, 'pushed_at_ms:' .. id, 'failed:' .. id)
  local is_lost = redis.call('HDEL', facts, 'lost:' .. id)
  return {redis.call('HGET', jobs, id), now_ms - known[1], tonumber(known[2] or 0), is_lost}
end

-- Answers 1, or 0 where another has the lease.
function steps.renew(id, holder, lease_ms)
  if not holds(id, holder) then
    return 0
  end
  redis.call('ZADD', leases, now_ms + lease_ms, id)
  return 1
end

-- Answers 1 to the one that finished the job, else 0.
function steps.finish(id, holder, receipt)
  if not holds(id, holder) then
    return 0
  end
  local is_first = redis.call('HSETNX', done, id, receipt)
  clear_lease(id)
  return is_first
end

-- Answers 1, or 0 where another has the lease.
function steps.give_back(id, holder, delay_ms, why)
  if not holds(id, holder) then
    return 0
  end
  redis.call('ZADD', delayed, now_ms + delay_ms, id)
  clear_lease(id)
  count(why, id)
  return 1
end

local answer = steps[ARGV[1]](unpack(ARGV, 2))
-- A run deletes its keys; what a run that was killed leaves behind goes by itself.
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, 600000)
end
return answer
