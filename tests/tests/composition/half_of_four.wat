;; A component of the world `trip-hooks`, by hand: trips when at least four calls were counted and half of them failed.
;; It stands for a rule of anybody's, in any language.
(component
  ;; The interface `hooks` as a component of its own, because a function that is exported may only speak of types that are.
  (component $hooks
    (core module $rule
      ;; A page. The circuit's and the rule's name are handed over here, 1,088 bytes at most.
      (memory (export "memory") 1)
      ;; Room for a text. This rule reads none of them, so all may lie at the same place.
      (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
        (i32.const 0))
      ;; A query, its fields one after another; a text is its address and its length.
      (func (export "will-trip")
        (param $circuit i32) (param $circuit-length i32)
        (param $rule-name i32) (param $rule-name-length i32) (param $rule-version i32)
        (param $failure-count-threshold i64) (param $generation i64)
        (param $total i64) (param $total-successes i64) (param $total-failures i64)
        (param $consecutive-successes i64) (param $consecutive-failures i64)
        (result i32)
        (i32.and
          (i64.ge_u (local.get $total) (i64.const 4))
          ;; As many failures as other calls, or more. Twice the failures could be too large a number.
          (i64.ge_u (local.get $total-failures) (i64.sub (local.get $total) (local.get $total-failures))))))
    (core instance $rule (instantiate $rule))

    (type $custom-rule-record (record (field "name" string) (field "version" u32)))
    (export $custom-rule "custom-rule" (type $custom-rule-record))
    (type $counts-record
      (record
        (field "total" u64)
        (field "total-successes" u64)
        (field "total-failures" u64)
        (field "consecutive-successes" u64)
        (field "consecutive-failures" u64)))
    (export $counts "counts" (type $counts-record))
    (type $trip-query-record
      (record
        (field "circuit" string)
        (field "rule" $custom-rule)
        (field "failure-count-threshold" u64)
        (field "generation" u64)
        (field "counts" $counts)))
    (export $trip-query "trip-query" (type $trip-query-record))
    (func (export "will-trip") (param "query" $trip-query) (result bool)
      (canon lift
        (core func $rule "will-trip")
        (memory $rule "memory")
        (realloc (func $rule "realloc")))))

  (instance $hooks (instantiate $hooks))
  (export "circuitry:breaker/hooks@0.1.0" (instance $hooks)))
