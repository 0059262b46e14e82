-- Replaces a circuit's entry if it is unchanged. Every host, in whatever language, sends this very text.
--
-- The entry of a circuit is a hash with the fields `version` and `value` under KEYS[1].
--
-- KEYS[1]  the key: the prefix and the circuit's name as they are
-- ARGV[1]  '1' where an entry is expected, '0' where none is
-- ARGV[2]  the version that the entry is expected to have; '' where none is expected
-- ARGV[3]  the version of this write: minted at random by the caller before it sends, at least 1 byte
-- ARGV[4]  the value
-- ARGV[5]  the time to live in milliseconds, 1 to 1000000000000000, or '' for one without end
--
-- Answers an array that begins with what became of it and the server's clock, in milliseconds since the Unix epoch:
--   {1, now_ms}                  stored
--   {0, now_ms}                  nothing written: there is no entry, and one was expected
--   {0, now_ms, version, value}  nothing written: this is the entry, and it is not the expected one
--   {2, now_ms}                  nothing written: the key holds a hash that is no entry of ours
-- or the server's error; WRONGTYPE where the key holds no hash.

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- pcall, so that the error keeps its code: before Redis 7 a raised one arrives as ERR.
local entry = redis.pcall('HMGET', KEYS[1], 'version', 'value')
if entry.err then
  return entry
end
local version, value = entry[1], entry[2]
local exists = version and value
if not exists and (version or value or redis.call('EXISTS', KEYS[1]) == 1) then
  return {2, now_ms}
end

if version == ARGV[3] then
  -- Somebody on the way has sent this write twice. It is stored, once.
  return {1, now_ms}
end
if not exists and ARGV[1] == '1' then
  return {0, now_ms}
end
if exists and (ARGV[1] == '0' or version ~= ARGV[2]) then
  return {0, now_ms, version, value}
end

local set_life
if ARGV[5] ~= '' then
  set_life = {'PEXPIRE', KEYS[1], ARGV[5]}
elseif exists then
  set_life = {'PERSIST', KEYS[1]}
end
-- A script is not rolled back, so a user who lacks one permission of two must fail before anything is written.
if set_life then
  if not redis.acl_check_cmd then
    -- Before Redis 7 the permission shows only by use. On a key that is not there yet this does nothing.
    redis.call(unpack(set_life))
  elseif not redis.acl_check_cmd(unpack(set_life)) then
    return redis.error_reply('NOPERM this user has no permission to run ' .. set_life[1] .. ' on the key')
  end
end
-- The first write is HSET, since it is the one that Redis refuses when its memory is full.
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'value', ARGV[4])
if set_life then
  redis.call(unpack(set_life))
end
return {1, now_ms}
